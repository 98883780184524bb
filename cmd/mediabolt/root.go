package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// storeVariable names the store where --store is not given.
const storeVariable = "MEDIABOLT_STORE"

// app is one run of the program: its streams and what the global flags say.
type app struct {
	stdin          *os.File
	stdout, stderr *os.File

	dir         string // --store; empty: not given
	asJSON      bool
	verbose     bool
	lockTimeout time.Duration
	// progressPause is --progress: between two lines of a progress where there is no
	// terminal; not above zero: nothing is shown.
	progressPause time.Duration

	running bool // the command line was understood
}

const (
	groupMedia = "media"
	groupStore = "store"
)

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "mediabolt",
		Short: "Store the media of LLM applications",
		Long: `mediabolt stores images, sound, video and documents as plain files in a directory
that you can browse, keeps equal bytes once, and gives back only bytes that are
still what was stored. What a command reports as stored survives a power cut.

A store is a directory. Say which with --store, or once for all commands:

  export ` + storeVariable + `=~/media

Data goes to standard output, everything else to standard error. Exit codes:

   0  success                            11  another process has the store open
   1  failure or wrong usage             12  damage found, or a promise broken
   3  some of several failed             13  not found
  10  no store there                     14  a hold keeps it from being deleted`,
		Example: `  mediabolt put --session s1 photo.png      store a file, print its ID
  mediabolt ls --session s1                 list what a session has
  mediabolt get ID -o copy.png              get it back
  mediabolt verify                          check everything`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.dir, "store", "", "`DIR` of the store (default: $"+storeVariable+")")
	flags.BoolVar(&a.asJSON, "json", false, "print JSON, one object a line")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "show what the store does by itself, as the recovery after a crash")
	flags.DurationVar(&a.lockTimeout, "lock-timeout", 5*time.Second, "how long to wait, a `DURATION`, for another process that has the store open; 0 does not wait")
	flags.DurationVar(&a.progressPause, "progress", plainPause, "how often, a `DURATION`, long work says how far it is where there is no terminal; 0 is never, nor on one")
	if err := root.MarkPersistentFlagDirname("store"); err != nil {
		panic(err) // the flag is the one above
	}
	root.AddGroup(
		&cobra.Group{ID: groupMedia, Title: "Media:"},
		&cobra.Group{ID: groupStore, Title: "The store:"},
	)
	a.add(root, groupMedia, a.putCommand(), a.getCommand(), a.catCommand(), a.statCommand(), a.urlCommand(), a.lsCommand(), a.findCommand(),
		a.refsCommand(), a.explainCommand(), a.retainCommand(), a.rmCommand())
	a.add(root, groupMedia, a.holdCommand())
	a.add(root, groupMedia, a.eraseCommand(), a.erasuresCommand())
	a.add(root, groupMedia, a.adoptCommand(), a.resolveCommand())
	a.add(root, groupStore, a.reorganizeCommand())
	a.add(root, groupStore, a.doctorCommand(), a.indexCommand())
	a.add(root, groupStore, a.statsCommand(), a.duCommand(), a.expireCommand(), a.verifyCommand(), a.repairCommand(), a.quarantineCommand(), a.certifyCommand())
	a.add(root, groupStore, a.rebuildCommand())
	a.add(root, groupStore, a.backupCommand(), a.restoreCommand(), a.exportCommand(), a.importCommand())
	a.add(root, groupStore, a.compactCommand())
	a.add(root, "", a.versionCommand(), a.victimCommand())
	return root
}

// add adds commands that note when they begin: an error before that is one of
// usage.
func (a *app) add(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = group
		do := c.RunE
		c.RunE = func(cmd *cobra.Command, args []string) error {
			a.running = true
			return do(cmd, args)
		}
	}
	root.AddCommand(commands...)
}

// storeDir is the directory of the store, as an absolute path.
func (a *app) storeDir() (string, error) {
	dir := a.dir
	if dir == "" {
		dir = os.Getenv(storeVariable)
	}
	if dir == "" {
		return "", hinted(errors.New("no store given"), "say --store DIR, or set "+storeVariable+" to the directory of the store")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return "", hinted(fmt.Errorf("%s is a file", dir), "a store is a directory: check --store and "+storeVariable)
	}
	return dir, nil
}

// lookForFiles bounds how long a directory that is no store is looked through.
const lookForFiles = time.Second

// refuseHeadless says why a directory is not to be taken for one without a store: it has
// the files of one, as far as a short look tells, whose references a new one would not
// have.
func refuseHeadless(ctx context.Context, dir string) error {
	if isStore(dir) {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, lookForFiles)
	defer stop()
	if some, err := blobs.Some(ctx, dir); err != nil || !some {
		return nil // opening it says what is wrong with the directory
	}
	err := fmt.Errorf("%w: %s has files of a store, and their %s is gone", storage.ErrNoStore, dir, blobs.ControlDir)
	return hinted(err, "'mediabolt rebuild' makes it anew from them; or say another directory")
}

// withStore opens the store, does something with it and closes it.
func (a *app) withStore(ctx context.Context, config engine.FileStoreConfig, do func(*engine.FileStore) error) (err error) {
	if config.BaseDir, err = a.storeDir(); err != nil {
		return err
	}
	if err := refuseHeadless(ctx, config.BaseDir); err != nil {
		return err
	}
	if config.LockTimeout = a.lockTimeout; a.lockTimeout == 0 {
		config.LockTimeout = -1
	}
	config.Logger = a.logger()
	store, err := engine.Open(ctx, config)
	if errors.Is(err, storage.ErrCorrupted) {
		return hinted(err, "") // verify cannot open it either; the error names 'mediabolt rebuild'
	} else if err != nil {
		return err
	}
	defer func() {
		if failed := store.Close(); failed != nil {
			err = errors.Join(err, failed)
		}
	}()
	return do(store)
}

// withExisting is withStore for commands that must not make a store.
func (a *app) withExisting(ctx context.Context, do func(*engine.FileStore) error) error {
	return a.withStore(ctx, engine.FileStoreConfig{NoCreate: true, EnableDeduplication: true}, do)
}

// logger shows what the store reports by itself: warnings and worse, or all of
// it with --verbose.
func (a *app) logger() *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.LevelWarn}
	if a.verbose {
		options.Level = slog.LevelInfo
	}
	if a.asJSON {
		return slog.New(slog.NewJSONHandler(a.stderr, options))
	}
	options.ReplaceAttr = func(groups []string, attr slog.Attr) slog.Attr {
		if len(groups) == 0 && attr.Key == slog.TimeKey {
			return slog.Attr{} // it is now
		}
		return attr
	}
	return slog.New(slog.NewTextHandler(a.stderr, options))
}

// exactly wants n arguments, and says which when they are missing.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < n {
			return fmt.Errorf("%s is missing", what)
		}
		if len(args) > n {
			return fmt.Errorf("unexpected argument %q", args[n])
		}
		return nil
	}
}

// some wants one argument or more.
func some(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("%s is missing", what)
		}
		return nil
	}
}

// none wants no arguments.
func none(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	return nil
}
