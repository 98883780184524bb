package adopt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"slices"
	"sync"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// takeBatch is how many files are taken between two syncs of the record, takeAtOnce
// how many at the same time: a store commits what many bring at once together.
const (
	takeBatch  = 64
	takeAtOnce = 16
)

// taker takes the candidates of a source.
type taker struct {
	store    *engine.FileStore // nil in a dry run: there is none yet
	adoption *engine.Adoption  // nil in a dry run
	src      *source
	options  *Options
	progress once
}

// taking is what became of a candidate so far.
type taking struct {
	c    *candidate
	item Item
	info fs.FileInfo // of the file as it was read; nil: it was not
	ref  *storage.StorageReference
	sum  storage.Digest // of what was read
	free bool           // the file may go once this is durable
	err  error          // ends the adoption
}

// takeAll takes the candidates, batch by batch. Of a batch, what was stored is made
// durable, then recorded, and then files are removed.
func (t *taker) takeAll(ctx context.Context, yield func(Item) bool) error {
	for batch := range slices.Chunk(t.src.candidates, takeBatch) {
		if err := ctx.Err(); err != nil {
			return err
		}
		taken := make([]taking, len(batch))
		atOnce(len(batch), func(i int) { taken[i] = t.take(ctx, batch[i]) })
		t.options.reach("stored")
		if t.adoption != nil {
			if err := t.adoption.Sync(context.WithoutCancel(ctx)); err != nil {
				return err
			}
		}
		t.options.reach("recorded")
		if t.options.InPlace {
			atOnce(len(taken), func(i int) { t.clear(ctx, &taken[i]) })
		}
		var failed error
		for i := range taken {
			if taken[i].err != nil {
				failed = errors.Join(failed, taken[i].err)
			} else if !yield(taken[i].item) {
				return errStopped
			}
		}
		if failed != nil {
			return firstOf(ctx, failed)
		}
	}
	return nil
}

// firstOf is ctx's error where that is what many calls failed with.
func firstOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// atOnce does n things, some at the same time.
func atOnce(n int, do func(i int)) {
	var all sync.WaitGroup
	slots := make(chan struct{}, takeAtOnce)
	for i := range n {
		slots <- struct{}{}
		all.Go(func() {
			do(i)
			<-slots
		})
	}
	all.Wait()
}

// take stores one candidate, unless it is known or not as it should be.
func (t *taker) take(ctx context.Context, c *candidate) (k taking) {
	k = taking{c: c}
	counted := int64(0)
	defer func() {
		if c.file != nil {
			t.progress.add(1, c.file.size-counted)
		} else {
			t.progress.add(1, 0)
		}
	}()
	if ref, found, err := t.find(ctx, c); err != nil {
		k.err = err
		return k
	} else if found {
		t.again(ctx, &k, ref)
		return k
	}
	if c.file == nil {
		c.note(OddMissing, "the index names it, and it is not there")
		k.item = c.item(Left)
		return k
	}
	in, err := t.openChecked(c, func(n int64) {
		counted += n
		t.progress.add(0, n)
	})
	if err != nil {
		k.leave(err)
		return k
	}
	k.info = in.info
	if t.adoption == nil {
		err = in.drain(ctx)
	} else {
		k.ref, err = t.adoption.StoreReader(ctx, in, engine.Arrival{Origins: c.origins, Count: c.count, Info: c.info, Metadata: c.metadata})
	}
	in.close()
	k.taken(in, err)
	return k
}

// find is the reference that an earlier run made of a candidate.
func (t *taker) find(ctx context.Context, c *candidate) (*storage.StorageReference, bool, error) {
	if t.store == nil {
		return nil, false, ctx.Err()
	}
	return t.store.FindOrigin(ctx, c.identities()...)
}

// taken says what came of storing what in has read.
func (k *taking) taken(in *checked, err error) {
	c := k.c
	switch {
	case in.failed != nil:
		k.leave(in.failed)
	case err == nil:
		k.sum = in.sum()
		state := Ready
		if k.ref != nil {
			state = Taken
		}
		if look := in.looksLike(c.info.MimeType); look != "" {
			c.note(OddType, "said to be %s, and looks like %s", c.info.MimeType, look)
		}
		k.item = c.item(state)
		k.item.SHA256 = k.sum.String()
		if k.ref != nil {
			k.item.Reference = k.ref.ID
			k.free = true
		}
	case errors.Is(err, storage.ErrInvalidMedia) || errors.Is(err, storage.ErrTooLarge):
		k.leave(&reason{OddRefused, err.Error()})
	default:
		k.err = fmt.Errorf("file %s: %w", c.path, err)
	}
}

// again is take for a candidate that an earlier run took.
func (t *taker) again(ctx context.Context, k *taking, ref *storage.StorageReference) {
	c := k.c
	k.ref = ref
	entry, err := t.store.Stat(ctx, ref)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		c.odd, c.detail = OddDeleted, "its reference was deleted since; it is not taken again"
		k.item = c.item(Known)
		k.item.Reference = ref.ID
		return
	case err != nil:
		k.err = err
		return
	}
	if t.adoption != nil {
		if k.err = t.adoption.Record(ctx, ref, c.origins...); k.err != nil {
			return
		}
	}
	if c.file == nil {
		c.odd, c.detail = "", ""
		k.item = c.item(Known)
		k.item.Size, k.item.Reference, k.free = entry.Size, ref.ID, true
		return
	}
	if c.file.size != entry.Size {
		k.leave(&reason{OddChanged, fmt.Sprintf("%d bytes, of which %d were taken before as %s", c.file.size, entry.Size, ref.ID)})
		return
	}
	if t.options.InPlace && !t.same(ctx, k, &entry) {
		return
	}
	k.item = c.item(Known)
	k.item.Reference = ref.ID
}

// same reads a file that an earlier run took once more, before it may be removed.
func (t *taker) same(ctx context.Context, k *taking, entry *engine.Entry) bool {
	in, err := t.openChecked(k.c, func(int64) {})
	if err != nil {
		k.leave(err)
		return false
	}
	err = in.drain(ctx)
	in.close()
	switch {
	case in.failed != nil:
		k.leave(in.failed)
	case err != nil:
		k.err = err
	case in.sum() != entry.Digest:
		k.leave(&reason{OddChanged, fmt.Sprintf("SHA-256 %s, that of what was taken before as %s is %s", in.sum(), entry.Reference.ID, entry.Digest)})
	default:
		k.info, k.sum, k.free = in.info, in.sum(), true
		return true
	}
	return false
}

// leave says that a candidate stays, and why.
func (k *taking) leave(why error) {
	r := &reason{OddUnreadable, ""}
	if !errors.As(why, &r) {
		r.detail = why.Error()
	}
	k.c.odd, k.c.detail = r.odd, r.detail
	k.item = k.c.item(Left)
}

// reason is why a file is not taken.
type reason struct {
	odd    Odd
	detail string
}

func (r *reason) Error() string { return r.detail }

// declare takes over a MIME type, if it is one.
func (c *candidate) declare(mimeType string) {
	if mimeType == "" {
		return
	}
	info := storage.MediaInfo{MimeType: mimeType}
	if _, _, err := mime.ParseMediaType(mimeType); err != nil || info.Validate() != nil {
		c.note(OddType, "%.80q is no MIME type: the bytes tell it", mimeType)
		return
	}
	c.info = info
}
