package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mediabolt/mediabolt/engine"
)

// erase is one run of the command erase.
type erase struct {
	ls
	options engine.EraseOptions
	all     bool
	yes     bool
	resume  bool
}

func (a *app) eraseCommand() *cobra.Command {
	e := &erase{ls: ls{listing: listing{app: a}}}
	cmd := &cobra.Command{
		Use:   "erase",
		Short: "Erase all that a query matches, and every trace of it",
		Long: `Delete every reference that the flags match. Bytes go with the last reference that
shares them. When it is done, no sidecar holds a session, conversation, run or user
that was given, and no directory is named after one: a blob that others share and
that lies in such a directory is moved to one of theirs.

What was decided is done: when the command is interrupted or the machine goes down,
the next opening of the store goes on, or 'mediabolt erase --resume' does. What is on
hold stays, and is told of; the exit code is then 3. An entry without any of the IDs
is kept in a ledger, which 'mediabolt erasures' prints.

Erased is not overwritten: bytes may be found in free blocks of the filesystem, and
rows in free pages of the index until 'mediabolt compact'. What a repair has set aside,
and copies of an index that a migration or a rebuild has kept, stay: those that tell of
what was erased, or may, are named with what removes them.

--dry-run says what would be erased. Without it the command asks on a terminal, and
elsewhere wants --yes.`,
		Example: `  mediabolt erase --user u1 --dry-run
  mediabolt erase --user u1 --by "privacy office" --reason "request 4711" --yes
  mediabolt erase --session s1 --type image --added-to 2026-01-01`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return e.run(cmd.Context()) },
	}
	e.addFilters(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&e.all, "all", false, "everything there is")
	flags.StringVar(&e.options.By, "by", "", "`WHO` asks for it, for the ledger")
	flags.StringVar(&e.options.Reason, "reason", "", "`TEXT` why, for the ledger; name nobody whose media it is")
	flags.BoolVar(&e.options.DryRun, "dry-run", false, "change nothing, say what would be erased")
	flags.BoolVar(&e.yes, "yes", false, "do not ask")
	flags.BoolVar(&e.resume, "resume", false, "go on with what was decided and not finished")
	return cmd
}

func (e *erase) run(ctx context.Context) error {
	if err := e.checkFilters(); err != nil {
		return err
	}
	switch narrows := e.query.Narrows(); {
	case e.resume && (narrows || e.all), e.all && narrows:
		return usagef("--all, --resume and filters exclude each other")
	case e.all:
		// Not now: the clock may have been set back since something was stored.
		e.query.AddedTo = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	case !e.resume && !narrows:
		return usagef("what to erase is missing: say --session, --user or another filter of 'mediabolt ls', or --all")
	}
	return e.app.withExisting(ctx, func(store *engine.FileStore) error {
		if e.resume {
			return e.goOn(ctx, store)
		}
		if e.options.DryRun {
			return e.once(ctx, store)
		}
		if err := e.confirm(ctx, store); err != nil {
			return err
		}
		return e.once(ctx, store)
	})
}

// goOn finishes what is pending.
func (e *erase) goOn(ctx context.Context, store *engine.FileStore) error {
	p := e.app.newProgress("erasing", "references")
	done, err := store.ResumeErasures(ctx, p.erasure)
	p.clear()
	failed := int64(0)
	for i := range done {
		if done[i].FinishedAt.IsZero() {
			continue
		}
		failed += done[i].Failed
		if err := e.print(&done[i]); err != nil {
			return err
		}
	}
	if err != nil {
		return hinted(unfinished(err), "what was decided stays so: the next command goes on with it, or 'mediabolt erase --resume'")
	}
	if len(done) == 0 && !e.app.asJSON {
		e.app.note("no erasure is unfinished")
	}
	if failed > 0 {
		return &batchError{fmt.Sprintf("%d were not erased", failed), outcome{"some_failed", exitSome, ""}}
	}
	return nil
}

// unfinished is the error of an erasure that was decided and is not done.
func unfinished(err error) error {
	if errors.Is(err, context.Canceled) {
		return &interruptedError{"interrupted before the erasure was done"}
	}
	return err
}

// erasure shows how far an erasure is.
func (p *progress) erasure(done engine.Erasure) {
	switch done.Far.Step {
	case engine.EraseCount:
		p.step("counting", "references", 0)
	case engine.EraseReferences:
		p.step("erasing", "references", 0)
	case engine.EraseTraces:
		p.step("looking for traces", "blobs", 0)
	}
	p.set(done.Far.Done, done.Far.Total)
}

// once erases, or says what it would.
func (e *erase) once(ctx context.Context, store *engine.FileStore) error {
	p := e.app.newProgress("erasing", "references")
	e.options.Progress = p.erasure
	done, err := store.Erase(ctx, e.query, e.options)
	p.clear()
	switch {
	case err != nil && done.ID != "":
		return hinted(unfinished(err), "it was decided: the next command goes on with it, or 'mediabolt erase --resume'")
	case errors.Is(err, context.Canceled):
		return hinted(&interruptedError{"interrupted"}, "nothing was erased")
	case err != nil:
		return err
	}
	if err := e.print(&done); err != nil {
		return err
	}
	if done.Failed > 0 && !e.options.DryRun {
		return &batchError{fmt.Sprintf("%d of %d were not erased", done.Failed, done.Failed+done.References), outcome{"some_failed", exitSome, ""}}
	}
	return nil
}

// confirm asks whether to erase what a dry run finds.
func (e *erase) confirm(ctx context.Context, store *engine.FileStore) error {
	if e.yes {
		return nil
	}
	if !term.IsTerminal(int(e.app.stdin.Fd())) {
		return usagef("erasing wants --yes where it cannot ask; --dry-run says what it would erase")
	}
	options := e.options
	options.DryRun = true
	would, err := store.Erase(ctx, e.query, options)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(e.app.stderr, "Erase %s for good? Type yes: ", eraseWords(&would)); err != nil {
		return err
	}
	answer, err := bufio.NewReader(interruptible(ctx, e.app.stdin)).ReadString('\n')
	if err != nil || strings.TrimSpace(answer) != "yes" {
		return errors.Join(errors.New("nothing was erased"), ctx.Err())
	}
	return nil
}

func eraseWords(e *engine.Erasure) string {
	return fmt.Sprintf("%s (%s of bytes that go, %s that stay because others share them)",
		count(int(e.References), "reference"), humanBytes(e.FreedBytes), humanBytes(e.SharedBytes))
}

// eraseRecord is what erase prints in JSON.
type eraseRecord struct {
	*engine.Erasure
	Moved *int64 `json:"moved"` // null: a dry run does not look for what would be moved
}

func (e *erase) print(done *engine.Erasure) error {
	if e.app.asJSON {
		record := eraseRecord{Erasure: done}
		if !e.options.DryRun {
			record.Moved = &done.Moved
		}
		return e.app.printJSON(&record)
	}
	for _, f := range done.Failures {
		e.app.note("%s stays: %s", cmp.Or(f.Ref, f.Path), f.Reason)
	}
	if e.options.DryRun {
		_, err := fmt.Fprintf(e.app.stdout, "would erase %s; blobs that are to be moved are found while erasing\n", eraseWords(done))
		e.printKept(done)
		return err
	}
	_, err := fmt.Fprintf(e.app.stdout, "erased %s, %s moved\n", eraseWords(done), count(int(done.Moved), "blob"))
	e.printKept(done)
	return err
}

// printKept names what an erasure leaves, and what removes it.
func (e *erase) printKept(done *engine.Erasure) {
	for _, batch := range done.Quarantined {
		e.app.note("batch %s of the quarantine tells of an ID: 'mediabolt quarantine purge --older-than 0s' removes all batches", batch)
	}
	for _, path := range done.KeptIndexes {
		e.app.note("%s may tell of what was erased: remove it when the store opens as it should", path)
	}
}

func (a *app) erasuresCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "erasures",
		Short: "List what was erased",
		Long: `List the erasures of the store, oldest first, with those that are not finished at
the end: who asked, when, and how much it was. Of the IDs that were erased there are
only hashes with a salt of their own, in JSON: whoever has an ID can tell whether it
was the one.`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return a.listErasures(cmd.Context()) },
	}
}

func (a *app) listErasures(ctx context.Context) error {
	return a.withExisting(ctx, func(store *engine.FileStore) error {
		out := bufio.NewWriter(a.stdout)
		rows, listed := newTable(out), 0
		for e, err := range store.Erasures(ctx) {
			if err != nil {
				return errors.Join(err, rows.end(), out.Flush())
			}
			if listed++; a.asJSON {
				if err := writeJSON(out, &e); err != nil {
					return err
				}
				continue
			}
			if listed == 1 {
				if err := rows.row("DECIDED", "FINISHED", "BY", "REFERENCES", "BYTES", "FAILED", "REASON"); err != nil {
					return err
				}
			}
			finished := "not yet"
			if !e.FinishedAt.IsZero() {
				finished = e.FinishedAt.Local().Format("2006-01-02 15:04:05")
			}
			if err := rows.row(e.DecidedAt.Local().Format("2006-01-02 15:04:05"), finished, clip(e.By, 24), strconv.FormatInt(e.References, 10),
				humanBytes(e.FreedBytes), strconv.FormatInt(e.Failed, 10), clip(e.Reason, 48)); err != nil {
				return err
			}
		}
		if listed == 0 && !a.asJSON {
			a.note("nothing was erased here")
		}
		return errors.Join(rows.end(), out.Flush())
	})
}
