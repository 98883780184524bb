//go:build unix

package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// permissions looks at owners and modes of what a store consists of.
func (r *Report) permissions(context.Context) {
	const topic = "permissions"
	if !r.Store {
		return
	}
	before := len(r.Findings)
	owner := uint32(0)
	for i, name := range append([]string{".", controlDir, filepath.Join(controlDir, stagingDir)}, r.controlFiles()...) {
		path := filepath.Join(r.Dir, name)
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			r.add(topic, Problem, "check the owner and the modes of the directories on the way", "cannot look at it: %v", err)
			continue
		}
		uid := info.Sys().(*syscall.Stat_t).Uid
		if i == 0 {
			owner = uid
		} else if uid != owner {
			r.add(topic, Warning, "chown it: whoever owns the store cannot use it otherwise", "%s belongs to user %d, the store to user %d", name, uid, owner)
		}
		r.mode(name, info.Mode())
	}
	if uid := os.Geteuid(); uint32(uid) != owner {
		r.add(topic, Note, "run mediabolt as the user of the store: what another makes there, that one cannot use", "the store belongs to user %d, and this is user %d", owner, uid)
	}
	if len(r.Findings) == before {
		r.add(topic, Fine, "", "owner and modes are as a store makes them")
	}
}

func (r *Report) mode(name string, mode fs.FileMode) {
	const topic = "permissions"
	const othersWrite, othersRead = 0o022, 0o044
	switch {
	case mode&0o002 != 0 && mode&fs.ModeSticky == 0:
		r.add(topic, Problem, "chmod o-w it", "everybody may write to %s (%v), and so replace media and index", name, mode)
	case mode&othersWrite != 0 && name != ".":
		r.add(topic, Note, "chmod go-w it, unless the group shares the store on purpose", "the group may write to %s (%v)", name, mode)
	case mode&othersRead != 0 && filepath.Base(name) == indexName:
		r.add(topic, Note, "chmod go-r it, unless others are to read the store", "others may read %s (%v), with all IDs and labels", name, mode)
	case mode&0o200 == 0:
		r.add(topic, Problem, "chmod u+w it", "its owner may not write to %s (%v)", name, mode)
	}
}

// controlFiles are the files of the control directory, relative to the store.
func (r *Report) controlFiles() []string {
	list := layout.Files()
	for i, name := range list {
		list[i] = filepath.Join(controlDir, name)
	}
	return list
}
