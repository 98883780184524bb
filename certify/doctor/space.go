package doctor

import (
	"context"

	"github.com/dustin/go-humanize"
)

// Space is what a filesystem has left, in bytes and in inodes. Where the system, or a
// filesystem without a fixed number, does not tell, both of a pair are 0.
type Space struct {
	Free       int64 `json:"free"` // for whoever runs this
	Total      int64 `json:"total"`
	FreeInodes int64 `json:"free_inodes"`
	Inodes     int64 `json:"inodes"`
}

// Below scarceShare of all, or scarceBytes, a warning is due. Below noBytes, which is
// what a commit with its sidecars may need, hardly anything can be stored.
const (
	scarceShare = 0.01
	scarceBytes = 256 << 20
	noBytes     = 4 << 20
)

func (r *Report) space(context.Context) {
	const topic = "space"
	s, err := spaceOf(r.look)
	if err != nil {
		r.add(topic, Warning, "", "cannot tell how much is left: %v", err)
		return
	}
	r.Space = s
	free := humanize.IBytes(uint64(max(s.Free, 0)))
	switch {
	case s.Total == 0:
		r.add(topic, Note, "", "the filesystem does not tell how much is left")
	case s.Free < noBytes:
		r.add(topic, Problem, "make room; deletions work on a full disk as long as the store has its reserve", "%s left", free)
	case s.Free < scarceBytes || float64(s.Free) < scarceShare*float64(s.Total):
		r.add(topic, Warning, "make room before stores fail", "%s of %s left", free, humanize.IBytes(uint64(s.Total)))
	default:
		r.add(topic, Fine, "", "%s of %s left", free, humanize.IBytes(uint64(s.Total)))
	}
	switch {
	case s.Inodes == 0:
	case s.FreeInodes == 0:
		r.add(topic, Problem, "remove files that are not needed; every blob is two", "no inode left: no file can be made, however many bytes are free")
	case float64(s.FreeInodes) < scarceShare*float64(s.Inodes):
		r.add(topic, Warning, "every blob is two files, itself and its sidecar", "%s of %s inodes left", humanize.Comma(s.FreeInodes), humanize.Comma(s.Inodes))
	default:
		r.add(topic, Fine, "", "%s inodes left", humanize.Comma(s.FreeInodes))
	}
}
