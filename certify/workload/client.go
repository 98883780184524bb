package workload

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// mimeType is that of every reference of a workload.
const mimeType = "application/octet-stream"

// labelOp is the label that holds the number of the operation that stored a
// reference: so one that was never acknowledged can be told from one that
// nobody stored.
const labelOp = "op"

// Target is the store that a workload uses.
type Target struct {
	// Dir is the store's base directory.
	Dir string
	// Configure changes a configuration before a store is opened with it; nil
	// leaves it as it is.
	Configure func(engine.FileStoreConfig) engine.FileStoreConfig
}

// config is a configuration for the store in its directory.
func (t *Target) config(c engine.FileStoreConfig) engine.FileStoreConfig {
	c.BaseDir = t.Dir
	if t.Configure != nil {
		c = t.Configure(c)
	}
	return c
}

// open opens the store in its directory.
func (t *Target) open(ctx context.Context, config engine.FileStoreConfig) (*engine.FileStore, error) {
	return engine.Open(ctx, t.config(config))
}

// Client makes calls to an open store and keeps a journal of them. It is safe
// for concurrent use.
type Client struct {
	Store   *engine.FileStore
	Journal *Journal
	// Scope is that of the store's configuration; empty: how stores share their
	// bytes is not judged.
	Scope engine.DedupScope
}

// Put stores content with Store, and returns the ID of its reference. A limit may
// refuse it.
func (c *Client) Put(ctx context.Context, content Content, place Place) (ref string, err error) {
	n := c.Journal.Begin(Op{Kind: KindStore, Content: content, Place: place, Scope: c.Scope})
	media := &storage.MediaContent{MimeType: mimeType, Data: "data:;base64," + base64.StdEncoding.EncodeToString(content.Bytes())}
	return c.stored(n)(c.Store.Store(ctx, media, metadata(n, place)))
}

// PutReader stores content with StoreReader, whose reader does not tell how
// much there is.
func (c *Client) PutReader(ctx context.Context, content Content, place Place) (ref string, err error) {
	n := c.Journal.Begin(Op{Kind: KindStoreReader, Content: content, Place: place, Scope: c.Scope})
	stream := io.LimitReader(content.stream(), int64(content.Size))
	return c.stored(n)(c.Store.StoreReader(ctx, stream, storage.MediaInfo{MimeType: mimeType}, metadata(n, place)))
}

func (c *Client) stored(n uint64) func(*storage.StorageReference, error) (string, error) {
	return func(ref *storage.StorageReference, err error) (string, error) {
		switch limit := new(engine.LimitError); {
		case errors.As(err, &limit):
			c.Journal.Refuse(n)
			return "", err
		case err != nil:
			c.Journal.End(n, "", err)
			return "", err
		}
		c.Journal.End(n, ref.ID, nil)
		return ref.ID, nil
	}
}

// Delete deletes a reference.
func (c *Client) Delete(ctx context.Context, ref string) error {
	n := c.Journal.Begin(Op{Kind: KindDelete, Ref: ref})
	err := c.Store.Delete(ctx, &storage.StorageReference{ID: ref})
	c.Journal.End(n, "", err)
	return err
}

// Retain gives a reference another policy.
func (c *Client) Retain(ctx context.Context, ref, policy string) error {
	n := c.Journal.Begin(Op{Kind: KindRetain, Ref: ref, Policy: policy})
	_, err := c.Store.Retain(ctx, &storage.StorageReference{ID: ref}, policy)
	c.Journal.End(n, "", err)
	return err
}

// Expire ends what is due.
func (c *Client) Expire(ctx context.Context) error {
	n := c.Journal.Begin(Op{Kind: KindExpire})
	done, err := c.Store.Expire(ctx, engine.ExpireOptions{})
	if err == nil && done.Failed > 0 {
		err = fmt.Errorf("%w: %d, the first: %w", errExpire, done.Failed, done.Failures[0].Err)
	}
	c.Journal.End(n, "", err)
	return err
}

// Hold puts a hold into force.
func (c *Client) Hold(ctx context.Context, h Held) error {
	n := c.Journal.Begin(Op{Kind: KindHold, Hold: h})
	err := c.Store.Hold(ctx, engine.Hold{Name: h.Name, Target: h.On})
	c.Journal.End(n, "", err)
	return err
}

// Release ends a hold.
func (c *Client) Release(ctx context.Context, h Held) error {
	n := c.Journal.Begin(Op{Kind: KindRelease, Hold: h})
	_, err := c.Store.Release(ctx, h.Name, h.On)
	c.Journal.End(n, "", err)
	return err
}

// Refused tries to delete what is held. It is an error if that is not refused.
func (c *Client) Refused(ctx context.Context, ref string) error {
	n := c.Journal.Begin(Op{Kind: KindRefused, Ref: ref})
	err := refused(c.Store.Delete(ctx, &storage.StorageReference{ID: ref}))
	c.Journal.End(n, "", err)
	return err
}

// refused is an error unless a deletion was refused for a hold.
func refused(err error) error {
	switch {
	case err == nil:
		return errors.New("what is held was deleted")
	case errors.Is(err, storage.ErrHeld):
		return nil
	}
	return err
}

// Close closes the store.
func (c *Client) Close() error {
	n := c.Journal.Begin(Op{Kind: KindClose})
	err := c.Store.Close()
	c.Journal.End(n, "", err)
	return err
}

// harm removes the file of a blob, or cuts it to size bytes if that is not
// negative.
func (c *Client) harm(ctx context.Context, dir, ref string, content Content, size int64) error {
	entry, err := c.Store.Stat(ctx, &storage.StorageReference{ID: ref})
	if err != nil {
		return err
	}
	n := c.Journal.Begin(Op{Kind: KindHarm, Content: content, Ref: ref})
	name := filepath.Join(dir, filepath.FromSlash(entry.Path))
	if size < 0 {
		err = os.Remove(name)
	} else {
		err = os.Truncate(name, size)
	}
	c.Journal.End(n, "", err)
	return err
}

// metadata is what the store is told of a reference. Every other one has a time of its
// own, the rest get the time of the call.
func metadata(n uint64, p Place) storage.MediaMetadata {
	labels := map[string]string{labelOp: strconv.FormatUint(n, 10)}
	if p.Origin != "" {
		labels[engine.AdoptedFrom] = p.Origin
	}
	m := storage.MediaMetadata{
		SessionID: p.Session, ConversationID: p.Conversation, RunID: p.Run, UserID: p.User, Policy: p.Policy, Labels: labels,
	}
	if n%2 == 0 {
		m.CreatedAt = time.Unix(int64(n), 0).UTC()
	}
	return m
}
