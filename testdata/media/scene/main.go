// SPDX-License-Identifier: Apache-2.0

// Command scene draws the sunrise that the sample pictures and the sample
// clip are made of.
//
// With -o it writes one picture, PNG or JPEG by the name's ending. With
// -frames it writes that many raw RGB24 frames of the rising sun to standard
// output, for a video encoder to read.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"os"
	"path/filepath"
)

// samples is the number of samples taken along each side of a pixel.
const samples = 3

// rgb is a colour with channels from 0 to 255.
type rgb struct{ r, g, b float64 }

var (
	skyTop   = rgb{52, 73, 130}
	skyLow   = rgb{255, 190, 128}
	sunColor = rgb{255, 236, 150}
	farHill  = rgb{122, 92, 132}
	nearHill = rgb{62, 58, 92}
	lakeFar  = rgb{214, 150, 128}
	lakeNear = rgb{40, 52, 98}
)

// mix blends a into b; t is 0 for a and 1 for b.
func mix(a, b rgb, t float64) rgb {
	return rgb{
		a.r + float64((b.r-a.r)*t),
		a.g + float64((b.g-a.g)*t),
		a.b + float64((b.b-a.b)*t),
	}
}

// at gives the colour at (x, y), both from 0 to 1, in a picture aspect times
// as wide as it is high. rise is 0 with the sun behind the hills, 1 at its top.
func at(x, y, aspect, rise float64) rgb {
	const shore = 0.70
	sunX, sunY := 0.60, 0.72-float64(0.36*rise)

	if y >= shore {
		c := mix(lakeFar, lakeNear, (y-shore)/(1-shore))
		// The sun's reflection: broken stripes that widen towards the viewer.
		depth := (y - shore) / (1 - shore)
		stripe := math.Mod(depth*6, 1) < 0.45
		if stripe && math.Abs(x-sunX) < 0.05+float64(0.07*depth) {
			c = mix(c, sunColor, 0.65*rise)
		}
		return c
	}

	near := 0.66 - float64(0.13*math.Sin(math.Pi*(float64(x*1.5)+0.35)))
	if x < 0.55 && y > near {
		return nearHill
	}
	far := 0.60 - float64(0.05*math.Sin(float64(x*9)+0.6)) - float64(0.03*math.Sin(x*17))
	if y > far {
		return farHill
	}

	d := math.Hypot((x-sunX)*aspect, y-sunY)
	if d < 0.13 {
		return sunColor
	}
	c := mix(skyTop, skyLow, y/shore)
	// Three flat rings of glow keep the picture small when compressed.
	for _, radius := range []float64{0.20, 0.29, 0.40} {
		if d < radius {
			c = mix(c, sunColor, 0.14)
		}
	}
	return c
}

// draw renders the scene at the given size.
func draw(width, height int, rise float64) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	aspect := float64(width) / float64(height)
	const n = samples * samples
	for py := range height {
		for px := range width {
			var sum rgb
			for i := range n {
				x := float64(px) + (float64(i%samples)+0.5)/samples
				y := float64(py) + (float64(i/samples)+0.5)/samples
				c := at(x/float64(width), y/float64(height), aspect, rise)
				sum.r += c.r
				sum.g += c.g
				sum.b += c.b
			}
			img.SetRGBA(px, py, color.RGBA{
				R: uint8(math.Round(sum.r / n)),
				G: uint8(math.Round(sum.g / n)),
				B: uint8(math.Round(sum.b / n)),
				A: 255,
			})
		}
	}
	return img
}

// writePicture encodes img by the ending of name.
func writePicture(name string, img image.Image) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	switch ext := filepath.Ext(name); ext {
	case ".png":
		enc := png.Encoder{CompressionLevel: png.BestCompression}
		return enc.Encode(f, img)
	case ".jpg", ".jpeg":
		return jpeg.Encode(f, img, &jpeg.Options{Quality: 85})
	default:
		return fmt.Errorf("unknown picture ending %q", ext)
	}
}

// writeFrames writes count raw RGB24 frames to standard output.
func writeFrames(count, width, height int) error {
	out := bufio.NewWriter(os.Stdout)
	for i := range count {
		pix := draw(width, height, float64(i+1)/float64(count)).Pix
		for p := 0; p < len(pix); p += 4 {
			if _, err := out.Write(pix[p : p+3]); err != nil {
				return err
			}
		}
	}
	return out.Flush()
}

func run() error {
	width := flag.Int("w", 160, "width in pixels")
	height := flag.Int("h", 100, "height in pixels")
	name := flag.String("o", "", "picture to write (.png or .jpg)")
	frames := flag.Int("frames", 0, "number of raw frames to write to standard output")
	flag.Parse()

	switch {
	case flag.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case *width < 1 || *height < 1:
		return errors.New("width and height must be at least 1")
	case *name != "" && *frames == 0:
		return writePicture(*name, draw(*width, *height, 1))
	case *name == "" && *frames > 0:
		return writeFrames(*frames, *width, *height)
	default:
		return errors.New("give either -o or -frames")
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "scene:", err)
		os.Exit(1)
	}
}
