package main

import (
	"context"
	"fmt"
)

// itemError is an error about one of the items of a command line. Its text is
// that of the error.
type itemError struct {
	error
	item string
}

func (e *itemError) Unwrap() error { return e.error }

// batchError says how many items failed. Each of them was reported before.
type batchError struct {
	msg string
	outcome
}

func (e *batchError) Error() string { return e.msg }

// each does something for each of n items and goes on after one that failed.
// The only item's error comes back as it is. Of several, each error is printed
// at once, and what comes back says how many there were: exit code 3 when some
// went well, the common outcome when all failed for the same reason.
func (a *app) each(ctx context.Context, n int, noun string, name func(int) string, do func(int) error) error {
	var failed []outcome
	for i := range n {
		err := do(i)
		if err != nil && ctx.Err() != nil {
			return interrupted(i, n, noun)
		}
		if err == nil {
			continue
		}
		err = &itemError{err, name(i)}
		if n == 1 {
			return err
		}
		a.complain(err)
		failed = append(failed, outcomeOf(err))
	}
	if len(failed) == 0 {
		return nil
	}
	return &batchError{fmt.Sprintf("%d of %d %s failed", len(failed), n, noun), combine(failed, n)}
}

// interrupted is the error of a command that a signal stopped.
func interrupted(done, n int, noun string) error {
	if n == 1 {
		return &interruptedError{"interrupted"}
	}
	msg := fmt.Sprintf("interrupted after %d of %d %s", done, n, noun)
	return hinted(&interruptedError{msg}, "what was printed is done, the rest is not: name it again to go on")
}

// combine is the outcome of n items of which some failed.
func combine(failed []outcome, n int) outcome {
	if len(failed) < n {
		return outcome{code: "some_failed", exit: exitSome}
	}
	for _, o := range failed {
		if o.code != failed[0].code {
			return outcome{code: "failed", exit: exitFailure}
		}
	}
	return outcome{code: failed[0].code, exit: failed[0].exit}
}
