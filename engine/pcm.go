package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"mime"
	"slices"
	"strconv"

	"github.com/mediabolt/mediabolt/storage"
)

// ConvertedFrom is the label of a reference whose content was converted when it
// was stored: it has the MIME type with which the content came. References have it
// in their Metadata too.
const ConvertedFrom = "converted_from"

// wavType is the MIME type of what WrapPCM makes.
const wavType = "audio/wav"

// pcm says how raw samples are laid out: frame after frame, of a sample for each
// channel.
type pcm struct {
	rate      uint32 // frames per second
	bits      int    // of a sample: 8, offset by 128, or 16, 24, 32, signed
	channels  int
	bigEndian bool
}

// defaultRate, in Hz, with 16 bits and one channel, is what models that speak
// send.
const defaultRate = 24000

// linear are the MIME types of PCM whose subtype tells the bits: L8 (RFC 3551,
// section 4.5.10), L16 (RFC 2586) and L24 (RFC 3190), big-endian all.
var linear = map[string]int{"audio/l8": 8, "audio/l16": 16, "audio/l24": 24}

// IsPCM says whether a MIME type is one of raw PCM, which WrapPCM converts. It is
// ErrInvalidMedia, naming the parameter, for one that cannot be read.
func IsPCM(mimeType string) (bool, error) {
	_, is, err := parsePCM(mimeType)
	return is, err
}

// parsePCM reads the MIME type of raw PCM; is is false for every other.
func parsePCM(mimeType string) (f pcm, is bool, err error) {
	kind, params, err := mime.ParseMediaType(mimeType)
	bits, named := linear[kind]
	if err != nil || !named && kind != "audio/pcm" {
		return f, false, nil
	}
	f = pcm{bits: bits, bigEndian: named}
	if !named {
		bits = 16
	}
	var failed error
	number := func(name string, otherwise int, limit uint64) int {
		text, given := params[name]
		if !given {
			return otherwise
		}
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil || n == 0 || n > limit {
			failed = fmt.Errorf("%w: MIME type %q: %s=%q: want a number from 1 to %d", storage.ErrInvalidMedia, mimeType, name, text, limit)
		}
		return int(n)
	}
	f.rate = uint32(number("rate", defaultRate, math.MaxUint32/256))
	f.channels = number("channels", 1, 64)
	f.bits = number("bits", bits, 32)
	switch {
	case failed != nil:
		return f, false, failed
	case named && f.bits != bits, f.bits%8 != 0:
		return f, false, fmt.Errorf("%w: MIME type %q: bits=%d: want 8, 16, 24 or 32, and with audio/L… what it says", storage.ErrInvalidMedia, mimeType, f.bits)
	}
	switch order := params["endianness"]; order {
	case "big-endian", "little-endian":
		f.bigEndian = order == "big-endian"
	case "":
		// What Gemini sends as audio/L16;codec=pcm is little-endian all the same.
		f.bigEndian = f.bigEndian && params["codec"] != "pcm"
	default:
		return f, false, fmt.Errorf("%w: MIME type %q: endianness=%q: want big-endian or little-endian", storage.ErrInvalidMedia, mimeType, order)
	}
	return f, true, nil
}

// width is that of a sample, frame that of a sample for each channel, in bytes.
func (f *pcm) width() int { return f.bits / 8 }
func (f *pcm) frame() int { return f.width() * f.channels }

// wavHeader is the length of the header of a WAV file, and wavLimit how many bytes
// of samples one can have: its sizes are of 32 bits, and the first counts all that
// follows it.
const (
	wavHeader = 44
	wavLimit  = math.MaxUint32 - (wavHeader - 8) - 1
)

// header is that of a WAV file with so many bytes of samples (RIFF, IBM and
// Microsoft 1991: chunks of an identifier, a little-endian size and the content,
// padded to an even length).
//
//	RIFF <size> WAVE
//	fmt  <16> <1: PCM> <channels> <rate> <bytes per second> <bytes per frame> <bits>
//	data <size> <samples>
func (f *pcm) header(size int64) []byte {
	h := append(make([]byte, 0, wavHeader), "RIFF"...)
	h = binary.LittleEndian.AppendUint32(h, uint32(wavHeader-8+size+size%2))
	h = append(h, "WAVEfmt "...)
	h = binary.LittleEndian.AppendUint32(h, 16)
	h = binary.LittleEndian.AppendUint16(h, 1)
	h = binary.LittleEndian.AppendUint16(h, uint16(f.channels))
	h = binary.LittleEndian.AppendUint32(h, f.rate)
	h = binary.LittleEndian.AppendUint32(h, f.rate*uint32(f.frame()))
	h = binary.LittleEndian.AppendUint16(h, uint16(f.frame()))
	h = binary.LittleEndian.AppendUint16(h, uint16(f.bits))
	h = append(h, "data"...)
	return binary.LittleEndian.AppendUint32(h, uint32(size))
}

// wrapPCM makes a WAV file of a payload that is raw PCM, and says so in info and m;
// every other stays as it is. All sizes are known by then, also that of a stream:
// so equal samples are one blob whatever way they come, and every player can play
// it. For a stream in a spool that costs another spool.
func (s *store) wrapPCM(ctx context.Context, p *payload, info *storage.MediaInfo, m *storage.MediaMetadata) error {
	if err := info.Validate(); err != nil {
		return err
	}
	f, is, err := parsePCM(info.MimeType)
	if err != nil || !is {
		return err
	}
	size := wavHeader + p.size + p.size%2
	switch limit := s.cfg.MaxFileSize; {
	case p.size%int64(f.frame()) != 0:
		return fmt.Errorf("%w: %d bytes of %s: its frames have %d bytes, and the last is not whole", storage.ErrInvalidMedia, p.size, info.MimeType, f.frame())
	case p.size > wavLimit:
		return fmt.Errorf("%w: %d bytes of PCM: a WAV file holds %d at most", storage.ErrTooLarge, p.size, int64(wavLimit))
	case limit > 0 && size > limit:
		return tooLarge(limit)
	}
	if err := relabel(info, m); err != nil {
		return err
	}
	switch {
	case p.refused != nil:
		return p.refused // the digest is of the samples alone
	case p.spool != "":
		return s.respool(ctx, p, &f)
	}
	buffer := newBuffer(int(size))
	wav := append((*buffer)[:0], f.header(p.size)...)
	wav = append(wav, p.data...)
	f.order(wav[wavHeader:])
	wav = append(wav, make([]byte, p.size%2)...)
	ticket := p.ticket
	p.free()
	*p = *s.inMemory(wav, buffer)
	p.ticket = ticket
	return nil
}

// relabel says of a reference that its content is converted to WAV.
func relabel(info *storage.MediaInfo, m *storage.MediaMetadata) error {
	if _, taken := m.Labels[ConvertedFrom]; taken {
		return fmt.Errorf("%w: label %s is set by the store when it converts", storage.ErrInvalidMedia, ConvertedFrom)
	}
	labels := map[string]string{ConvertedFrom: info.MimeType}
	maps.Copy(labels, m.Labels)
	m.Labels, info.MimeType = labels, wavType
	return m.Validate()
}

// respool puts the WAV file of a payload in a spool into another. A crash leaves
// both in staging without a row, so that the next opening removes them.
func (s *store) respool(ctx context.Context, p *payload, f *pcm) (err error) {
	id, err := s.mint.next()
	if err != nil {
		return err
	}
	raw := storage.UUIDKey(id)
	if err := s.blobs.Claim(ctx, p.spool, raw); err != nil {
		return err
	}
	p.spool = ""
	defer func() { err = errors.Join(err, s.blobs.Discard(context.WithoutCancel(ctx), raw)) }()
	file, size, err := s.blobs.OpenStaged(ctx, raw)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return s.spool(ctx, p, io.MultiReader(
		bytes.NewReader(f.header(size)), &orderedReader{f, file}, bytes.NewReader(make([]byte, size%2))), wavHeader+size+size%2)
}

// order makes samples little-endian, as those of WAV are.
func (f *pcm) order(samples []byte) {
	if width := f.width(); f.bigEndian && width > 1 {
		for i := 0; i+width <= len(samples); i += width {
			slices.Reverse(samples[i : i+width])
		}
	}
}

// orderedReader reads whole samples and makes them little-endian.
type orderedReader struct {
	f *pcm
	r io.Reader
}

func (o *orderedReader) Read(p []byte) (int, error) {
	p = p[:len(p)-len(p)%o.f.width()]
	if len(p) == 0 {
		return 0, io.ErrShortBuffer
	}
	n, err := io.ReadFull(o.r, p)
	o.f.order(p[:n])
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}
