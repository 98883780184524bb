#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Remakes every sample file in this folder from nothing.
# Needs the Debian package ffmpeg, and Go 1.22 or later (on Debian 13 or
# later: the package golang-go). See README.md.

set -euo pipefail
export LC_ALL=C # so that ${#string} counts bytes

# Tool and the Debian package that brings it.
missing=()
command -v ffmpeg >/dev/null || missing+=(ffmpeg)
command -v go >/dev/null || missing+=(golang-go)
if ((${#missing[@]})); then
  printf 'make.sh: missing tools; install the Debian packages: %s\n' "${missing[*]}" >&2
  printf 'make.sh: for example: sudo apt-get install %s\n' "${missing[*]}" >&2
  exit 1
fi

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf -- "$tmp"' EXIT
cd -- "$here"

# Options that keep dates, versions and other passing details out of the files.
exact=(-map_metadata -1 -fflags +bitexact -flags:v +bitexact -flags:a +bitexact)

run_ffmpeg() {
  ffmpeg -hide_banner -nostdin -loglevel error -y "$@"
}

make_pictures() {
  "$tmp/scene" -o "$tmp/sunrise.png"
  "$tmp/scene" -o "$tmp/sunrise.jpg"
}

# An A major chord (A4, C#5, E5), faded in and out so that it does not click.
make_sound() {
  local chord='0.2*(sin(2*PI*440*t)+sin(2*PI*554.37*t)+sin(2*PI*659.26*t))'
  run_ffmpeg -f lavfi -i "aevalsrc=exprs=$chord:s=24000:d=0.5" \
    -af 'afade=t=in:d=0.02,afade=t=out:st=0.4:d=0.1' \
    "${exact[@]}" -c:a pcm_s16le "$tmp/tone.wav"
  run_ffmpeg -i "$tmp/tone.wav" \
    "${exact[@]}" -c:a libmp3lame -b:a 48k "$tmp/tone.mp3"
  run_ffmpeg -i "$tmp/tone.wav" \
    "${exact[@]}" -c:a libvorbis -q:a 3 "$tmp/tone.ogg"
}

# The sun rises for one second. The filter drops x264's note of its version
# and settings; one thread keeps the result independent of the machine's cores.
make_clip() {
  "$tmp/scene" -frames 12 -w 96 -h 64 |
    ffmpeg -hide_banner -loglevel error -y \
      -f rawvideo -pixel_format rgb24 -video_size 96x64 -framerate 12 -i - \
      "${exact[@]}" -c:v libx264 -preset slow -crf 24 -pix_fmt yuv420p -threads 1 \
      -bsf:v filter_units=remove_types=6 -movflags +faststart "$tmp/clip.mp4"
}

# Writes one A4 page by hand: six objects, then the table of their offsets.
make_letter() {
  local lines=(
    'Dear reader,'
    ''
    'This letter is a sample document. It has one page and a few'
    'lines of plain text, so that a program can open it, count its'
    'pages and read its words.'
    ''
    'The sun rises at 6:42. The lake is calm. The boat leaves at nine.'
    ''
    'With kind regards,'
    'The sample files'
  )
  local text line
  text=$'BT\n/F1 20 Tf\n72 760 Td\n(A Letter at Sunrise) Tj\n/F1 12 Tf\n18 TL\n0 -22 Td\n'
  for line in "${lines[@]}"; do
    text+="T* ($line) Tj"$'\n' # the lines hold no ( ) or \ to escape
  done
  text+='ET'

  local objects=(
    '<< /Type /Catalog /Pages 2 0 R /Lang (en) >>'
    '<< /Type /Pages /Kids [3 0 R] /Count 1 >>'
    '<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 4 0 R >> >> /Contents 5 0 R >>'
    '<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>'
    "<< /Length ${#text} >>"$'\nstream\n'"$text"$'\nendstream'
    '<< /Title (A Letter at Sunrise) >>'
  )
  local count=$((${#objects[@]} + 1)) number=0 object table
  # The second line's four high bytes mark the file as binary.
  local pdf=$'%PDF-1.4\n%\xe2\xe3\xcf\xd3\n'
  table=$'0000000000 65535 f \n'
  for object in "${objects[@]}"; do
    number=$((number + 1))
    table+=$(printf '%010d 00000 n ' "${#pdf}")$'\n'
    pdf+="$number 0 obj"$'\n'"$object"$'\nendobj\n'
  done
  {
    printf '%s' "$pdf"
    printf 'xref\n0 %d\n%s' "$count" "$table"
    printf 'trailer\n<< /Size %d /Root 1 0 R /Info %d 0 R >>\n' "$count" "$number"
    printf 'startxref\n%d\n%%%%EOF\n' "${#pdf}"
  } >"$tmp/letter.pdf"
}

go build -o "$tmp/scene" scene/main.go
make_pictures
make_sound
make_clip
make_letter

# Replace the old files only once all the new ones are there.
files=(sunrise.png sunrise.jpg tone.wav tone.mp3 tone.ogg clip.mp4 letter.pdf)
for file in "${files[@]}"; do
  chmod 644 "$tmp/$file"
  mv -f -- "$tmp/$file" "$here/$file"
done
ls -l -- "${files[@]}"
