package boltindex

import (
	"context"

	"github.com/mediabolt/mediabolt/storage"
)

// maxDebtPage bounds the rows that one operation of Settle drops, so that a
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

// Settle drops what has been paid, and is durable, from the debt. Rows that are
// not there are no error. Errors: ErrDiskSpace, ErrIO, or ctx's.
func (x *Index) Settle(ctx context.Context, paid storage.Debt) error {
	x.refillReserve()
	for len(paid.Mirrors) > 0 || len(paid.Unlinks) > 0 {
		m := min(len(paid.Mirrors), maxDebtPage)
		u := min(len(paid.Unlinks), maxDebtPage)
		page := storage.Debt{Mirrors: paid.Mirrors[:m], Unlinks: paid.Unlinks[:u]}
		if err := x.commit(ctx, &op{shrinks: true, do: func(t *txn) error { t.settle(&page); return nil }}); err != nil {
			return err
		}
		paid.Mirrors, paid.Unlinks = paid.Mirrors[m:], paid.Unlinks[u:]
	}
	return nil
}

func (t *txn) settle(paid *storage.Debt) {
	for i := range paid.Mirrors {
		t.delete(bucketMirrors, paid.Mirrors[i].Key())
	}
	for _, u := range paid.Unlinks {
		t.delete(bucketUnlinks, []byte(u.Path))
	}
}
