package boltindex

import (
	"context"
	"iter"

	bolt "go.etcd.io/bbolt"
)

// The copy is of no one moment, for bbolt could not use pages again as long as a
// transaction of that moment were open. Its rows come in order, a batch at a time,
// each as it is when it is copied. Before each batch the rows that were flushed since
// the last are written once more, as far as they have been copied: the others come
// with the batches that follow. So once all that was flushed has been written, the copy
// is what bbolt has, whatever of it was copied late.

// batchBytes bounds the rows that are read, written and synced at a time, in bytes. The
// sync of a group of stores may be one of the whole filesystem, and then waits for
// what a batch has written.
const batchBytes = 1 << 20

// maxFollows bounds how often what was flushed meanwhile is written before flushes are
// kept out, whatever is still to be written.
const maxFollows = 8

// copiedFill is how full the copy leaves the pages of a bucket whose rows come
// everywhere: a random insert splits one in five in the end, and not all at once.
const copiedFill = 0.8

func copyFill(b bucket) float64 {
	if b == bucketRefs {
		return refsFill
	}
	return copiedFill
}

// copied is a row of a batch, under its table key.
type copied struct {
	key   string
	value []byte
}

// copy copies all rows into the new file.
func (c *compaction) copy(ctx context.Context) error {
	var done int64
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		late := c.takeLate()
		var batch []copied
		err := c.x.viewBolt(func(s *state) (err error) {
			batch, more, err = s.batch(c.upTo, c.x.batch)
			return err
		})
		if err != nil {
			return err
		}
		err = c.file.update(func(tx *bolt.Tx) error {
			for _, l := range late {
				if err := putRows(tx, c.known(l.rows), copyFill); err != nil {
					return err
				}
			}
			return putRows(tx, each(batch), copyFill)
		})
		if err == nil && !c.x.changes.noSync {
			err = datasync(c.file.locked)
		}
		if err != nil {
			return err
		}
		for _, l := range late {
			c.applied = l.to
		}
		if len(batch) > 0 {
			c.upTo = batch[len(batch)-1].key
		}
		for _, row := range batch {
			done += int64(len(row.key) + len(row.value))
		}
		c.progress(min(done, c.After), c.After)
	}
	c.progress(c.After, c.After)
	c.x.reach(stepCopied)
	return nil
}

// known is those of changed rows that have been copied.
func (c *compaction) known(rows *table) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		rows.Scan(func(key string, value []byte) bool { return key <= c.upTo && yield(key, value) })
	}
}

func each(batch []copied) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for _, row := range batch {
			if !yield(row.key, row.value) {
				return
			}
		}
	}
}

// batch is the rows that follow a table key, as many as have a size together, and
// whether there may be more.
func (s *state) batch(after string, bytes int) (list []copied, more bool, err error) {
	b, start := bucketMeta, []byte(nil)
	if after != "" {
		b, start = bucket(after[0]), append([]byte(after[1:]), 0)
	}
	size := 0
	for ; b < buckets; b, start = b+1, nil {
		var at treeCursor
		err := at.seek(s, s.trees[b], start)
		for err == nil {
			key, value := at.row()
			if key == nil {
				break
			}
			list = append(list, copied{tableKey(b, key), append([]byte{}, value...)})
			if size += len(key) + len(value); size >= bytes {
				return list, true, nil
			}
			err = at.next(s)
		}
		if err != nil {
			return nil, false, err
		}
	}
	return list, false, nil
}

// takeLate is what was flushed since it was last called, the oldest first.
func (c *compaction) takeLate() []flushed {
	c.x.layersMu.Lock()
	defer c.x.layersMu.Unlock()
	late := c.late
	c.late = nil
	return late
}

// follow makes the copy a whole state of the index, twice: the new file begins with
// no other.
func (c *compaction) follow(ctx context.Context) error {
	for range 2 {
		if err := c.followOnce(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *compaction) followOnce(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.catchUp(); err != nil {
		return err
	}
	c.x.reach(stepFollowed)
	return nil
}

// keepOut keeps flushes out from a moment on when the copy has all that was flushed,
// or, where they come faster than they are followed, the last of it is still to be
// written. It returns with flushing locked, unless there is an error.
func (c *compaction) keepOut(ctx context.Context) error {
	for range maxFollows {
		c.x.flushing.Lock()
		if !c.behind() {
			return nil
		}
		c.x.flushing.Unlock()
		if err := c.followOnce(ctx); err != nil {
			return err
		}
	}
	c.x.flushing.Lock()
	return nil
}

// behind says whether something was flushed that has not been written.
func (c *compaction) behind() bool {
	c.x.layersMu.RLock()
	defer c.x.layersMu.RUnlock()
	return len(c.late) > 0
}

// catchUp writes what was flushed meanwhile, in one transaction at least: once all
// rows are copied, that is a whole state of the index.
func (c *compaction) catchUp() error {
	late := c.takeLate()
	if len(late) == 0 {
		late = []flushed{{newTable(), c.applied}}
	}
	for _, l := range late {
		if err := c.file.transfer(l.rows, l.to, c.file.update); err != nil {
			return err
		}
		c.applied = l.to
	}
	return nil
}

// tell notes rows that bbolt has got. The caller holds layersMu.
func (c *compaction) tell(rows *table, to uint64) {
	if c != nil {
		c.late = append(c.late, flushed{rows, to})
	}
}
