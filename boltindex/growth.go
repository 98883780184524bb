package boltindex

import (
	"os"
	"runtime"

	bolt "go.etcd.io/bbolt"
)

// bbolt lets its file grow by a hole, so that a commit which fills some of it
// makes the filesystem allocate blocks, and its sync commit a journal. The
// index therefore writes zeros behind the pages in use beforehand, a step at a
// time: then the syncs of nearly every commit write data alone. With one
// writer on ext4 that saved a quarter of a commit's time.
const (
	growStep = 1 << 20      // bytes written at a time
	growFrom = growStep / 4 // bytes left at which the next step is written
)

// growth keeps the file written ahead of its use. Only the leader of a group
// uses it, inside its transaction.
type growth struct {
	zeroed int64 // how far the file is written
}

// ahead writes the next step when the transaction may come near the end of the
// last. That the disk has no room is left to the transaction itself to find.
func (g *growth) ahead(file *os.File, tx *bolt.Tx) {
	used := tx.Size()
	g.zeroed = max(g.zeroed, used)
	if runtime.GOOS == "windows" || g.zeroed-used >= growFrom {
		return // on Windows the file is as long as its map, without holes
	}
	n, _ := file.WriteAt(make([]byte, growStep), g.zeroed)
	g.zeroed += int64(n)
}
