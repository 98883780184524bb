package engine

import (
	"fmt"

	"github.com/mediabolt/mediabolt/storage"
)

// Quota bounds what a store holds, in bytes. A zero field is no bound. It is exact,
// however many store and import at once: what is stored never passes it, and a Store is
// refused only where it does not fit beside what is there. One that would fit but
// for others that are under way waits for them. Who stores a stream finds out while
// it is read, at every 256 KiB; if its bytes might be there already, at its end.
type Quota struct {
	// TotalBytes bounds the bytes of all blobs (physical): content that is shared
	// with what is there costs nothing.
	TotalBytes int64
	// UserBytes and SessionBytes bound the bytes of the references of each user
	// and of each session (logical): shared content counts for every reference.
	UserBytes, SessionBytes int64
}

func (q *Quota) validate() error {
	for _, f := range [...]struct {
		name  string
		bytes int64
	}{{"TotalBytes", q.TotalBytes}, {"UserBytes", q.UserBytes}, {"SessionBytes", q.SessionBytes}} {
		if f.bytes < 0 {
			return fmt.Errorf("%w: Quota.%s %d is negative", storage.ErrInvalidConfig, f.name, f.bytes)
		}
	}
	return nil
}

// Limit is a kind of bound on what is stored; its values are stable.
type Limit string

const (
	LimitTotal   Limit = "total"   // Quota.TotalBytes
	LimitUser    Limit = "user"    // Quota.UserBytes
	LimitSession Limit = "session" // Quota.SessionBytes
	LimitFree    Limit = "free"    // MinFreeBytes
)

// LimitError says that a Store or an Import was refused for the sake of a limit of the
// configuration. It is ErrDiskSpace.
type LimitError struct {
	Limit Limit
	ID    string // of the user or session
	Bytes int64  // the limit, in bytes
	Used  int64  // bytes that count against it; of LimitFree, bytes that are free
	Asked int64  // bytes that the Store asked for, of a stream at least
}

func (e *LimitError) Error() string {
	switch e.Limit {
	case LimitFree:
		return fmt.Sprintf("%v: %d bytes are free, %d more were asked for, and MinFreeBytes keeps %d free", storage.ErrDiskSpace, e.Used, e.Asked, e.Bytes)
	case LimitTotal:
		return fmt.Sprintf("%v: the store's quota is %d bytes: %d are used, %d more were asked for", storage.ErrDiskSpace, e.Bytes, e.Used, e.Asked)
	}
	return fmt.Sprintf("%v: the quota of %s %q is %d bytes: %d are used, %d more were asked for", storage.ErrDiskSpace, e.Limit, e.ID, e.Bytes, e.Used, e.Asked)
}

func (e *LimitError) Unwrap() error { return storage.ErrDiskSpace }
