package frame

import (
	"fmt"
	"sync/atomic"

	"github.com/mediabolt/mediabolt/storage"
)

// Doubt refuses changes once the outcome of one is unknown. The zero value
// accepts them.
type Doubt struct{ cause atomic.Pointer[error] }

// Err is why no change is accepted any more, nil as long as they are.
func (d *Doubt) Err() error {
	if cause := d.cause.Load(); cause != nil {
		return *cause
	}
	return nil
}

// Raise records that a commit failed with err so late that it may have happened
// all the same, and returns the error that says so.
func (d *Doubt) Raise(err error) error {
	err = fmt.Errorf("%w: %w", storage.ErrInDoubt, err)
	d.cause.CompareAndSwap(nil, &err)
	return err
}
