package boltindex

import (
	"context"

	"github.com/mediabolt/mediabolt/storage"
)

// maxDebtPage bounds the rows that one operation of Owe or Settle changes, so that a
// checkpoint never makes the stores of its group wait for long: about 1 ms.
const maxDebtPage = 1024

// Debt is everything that committed transactions owe to the directory tree.
// It grows with what has happened since the last checkpoint only.
func (x *Index) Debt(ctx context.Context) (storage.Debt, error) {
	var debt storage.Debt
	if err := ctx.Err(); err != nil {
		return debt, err
	}
	err := x.view(func(r *rows) error {
		for k, v := range r.from(bucketMirrors, nil) {
			m, err := storage.ParseMirror(k, storage.BlobKey(v))
			if err != nil {
				return err
			}
			debt.Mirrors = append(debt.Mirrors, m)
		}
		for k := range r.from(bucketUnlinks, nil) {
			debt.Unlinks = append(debt.Unlinks, storage.Unlink{Path: string(k)})
		}
		return nil
	})
	return debt, x.wrap(err)
}

// Owe adds to the debt, durably. Errors: ErrDiskSpace, ErrIO, ErrInDoubt, or ctx's.
func (x *Index) Owe(ctx context.Context, debt storage.Debt) error {
	return x.inPages(ctx, debt, false, (*txn).oweAll)
}

// Settle drops what has been paid, and is durable, from the debt. Rows that are
// not there are no error. Errors: ErrDiskSpace, ErrIO, or ctx's.
func (x *Index) Settle(ctx context.Context, paid storage.Debt) error {
	x.refillReserve()
	return x.inPages(ctx, paid, true, (*txn).settle)
}

// inPages commits a change for all of a debt, some of it at a time.
func (x *Index) inPages(ctx context.Context, debt storage.Debt, shrinks bool, do func(*txn, *storage.Debt) error) error {
	for len(debt.Mirrors) > 0 || len(debt.Unlinks) > 0 {
		m := min(len(debt.Mirrors), maxDebtPage)
		u := min(len(debt.Unlinks), maxDebtPage)
		page := storage.Debt{Mirrors: debt.Mirrors[:m], Unlinks: debt.Unlinks[:u]}
		if err := x.commit(ctx, &op{shrinks: shrinks, do: func(t *txn) error { return do(t, &page) }}); err != nil {
			return err
		}
		debt.Mirrors, debt.Unlinks = debt.Mirrors[m:], debt.Unlinks[u:]
	}
	return nil
}

func (t *txn) oweAll(debt *storage.Debt) error {
	for i := range debt.Mirrors {
		if err := t.owe(&debt.Mirrors[i]); err != nil {
			return err
		}
	}
	for _, u := range debt.Unlinks {
		if err := t.put(bucketUnlinks, []byte(u.Path), nil); err != nil {
			return err
		}
	}
	return nil
}

func (t *txn) settle(paid *storage.Debt) error {
	for i := range paid.Mirrors {
		t.delete(bucketMirrors, paid.Mirrors[i].Key())
	}
	for _, u := range paid.Unlinks {
		t.delete(bucketUnlinks, []byte(u.Path))
	}
	return nil
}
