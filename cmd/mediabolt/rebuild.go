package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// rebuild is one run of the command rebuild.
type rebuild struct {
	app  *app
	deep bool

	err error // of printing a finding
}

func (a *app) rebuildCommand() *cobra.Command {
	r := &rebuild{app: a}
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Make a lost or damaged index anew, from the files and their sidecars",
		Long: `Make the index of the store anew from what is in its directories: every reference,
with its labels and times, from the sidecars (.meta) beside the files, and what
these do not have yet from the old index or its log as far as those can be read. A
file without a sidecar becomes one reference, with what its path tells.

The old index is set aside, in .mediabolt/index.damaged-<time>, and the new one is
put in place only when it was checked against the files. These, and foreign ones, are
left as they are. A rebuild that is interrupted, or killed, can simply be run again.
Nobody may have the store open meanwhile.

Prints what is not as it should be, then a summary. The index is restored, with
all references, also where files are missing or damaged; then the exit code is 12.
With --json, findings are JSON Lines and the last line is the summary, of the kind
"summary".`,
		Example: `  mediabolt rebuild
  mediabolt rebuild --deep
  mediabolt rebuild --json | tail -n 1`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return r.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&r.deep, "deep", false, "read every file too, and compare it with its sidecar")
	return cmd
}

// rebuildSummary is the last line of rebuild in JSON.
type rebuildSummary struct {
	Kind       string  `json:"kind"` // "summary"
	OK         bool    `json:"ok"`
	Blobs      int64   `json:"blobs"`
	References int64   `json:"references"`
	Recovered  int64   `json:"recovered"` // of the references, from the old index or its log
	Adopted    int64   `json:"adopted"`   // of the references, from the files alone
	Damage     int64   `json:"damage"`
	Foreign    int64   `json:"foreign_files"`
	SetAside   string  `json:"set_aside"` // relative to the store; empty: there was no index
	Deep       bool    `json:"deep"`
	Seconds    float64 `json:"seconds"`
	PerSecond  float64 `json:"references_per_second"`
}

func (r *rebuild) run(ctx context.Context) error {
	config := engine.FileStoreConfig{LockTimeout: r.app.lockTimeout, Logger: r.app.logger()}
	if r.app.lockTimeout == 0 {
		config.LockTimeout = -1
	}
	var err error
	if config.BaseDir, err = r.app.storeDir(); err != nil {
		return err
	}
	show := r.app.newProgress("rebuilding", "blobs")
	result, err := engine.Rebuild(ctx, config, engine.RebuildOptions{
		Deep: r.deep,
		Progress: func(p engine.RebuildProgress) {
			switch p.Step {
			case engine.RebuildCount:
				show.step("counting", "blobs", 0)
			case engine.RebuildRestore:
				show.step("rebuilding", "blobs", 0)
			case engine.RebuildCheck:
				show.step("checking the new index", "blobs", 0)
			}
			show.set(p.Done, p.Total)
		},
		Found: func(f storage.Finding) {
			show.clear()
			if err := r.app.printFinding(&f); r.err == nil {
				r.err = err
			}
		},
	})
	show.clear()
	switch {
	case ctx.Err() != nil && err != nil:
		return hinted(&interruptedError{"interrupted; nothing was changed"}, "run it again: it begins anew")
	case err != nil:
		return err
	case r.err != nil:
		return r.err
	}
	if err := r.summarise(&result); err != nil {
		return err
	}
	if result.Damaged > 0 {
		err := fmt.Errorf("the index is restored, but there are %s of damage: %w", count(int(result.Damaged), "finding"), storage.ErrCorrupted)
		return hinted(err, "the findings above say what was found and what helps")
	}
	return nil
}

func (r *rebuild) summarise(result *engine.Rebuilt) error {
	rate := engine.RebuildProgress{References: result.References, Elapsed: result.Elapsed}.PerSecond()
	if r.app.asJSON {
		return r.app.printJSON(rebuildSummary{
			Kind: "summary", OK: result.Damaged == 0, Blobs: result.Blobs, References: result.References,
			Recovered: result.Recovered, Adopted: result.Adopted, Damage: result.Damaged, Foreign: result.Foreign,
			SetAside: result.SetAside, Deep: r.deep, Seconds: result.Elapsed.Round(time.Millisecond).Seconds(), PerSecond: rate,
		})
	}
	how := ""
	if result.Recovered > 0 {
		how += ", " + count(int(result.Recovered), "reference") + " from the old index"
	}
	if result.Adopted > 0 {
		how += ", " + count(int(result.Adopted), "reference") + " adopted"
	}
	if result.Foreign > 0 {
		how += ", " + count(int(result.Foreign), "foreign file") + " left alone"
	}
	_, err := fmt.Fprintf(r.app.stdout, "restored %s to %s in %s (%.0f/s)%s\n", count(int(result.References), "reference"),
		count(int(result.Blobs), "blob"), result.Elapsed.Round(time.Millisecond), rate, how)
	if err == nil && result.SetAside != "" {
		_, err = fmt.Fprintf(r.app.stdout, "the old index is in %s; remove that when you are sure\n", plain(result.SetAside))
	}
	return err
}
