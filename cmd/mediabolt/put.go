package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"mime"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// fileNameLabel is the label that keeps the base name of a file.
const fileNameLabel = "file_name"

// put is one run of the command put.
type put struct {
	app          *app
	recursive    bool
	noDedup      bool
	dedup        bool
	wrapPCM      bool
	organization string
	scope        string
	limits       limitFlags
	labels       []string
	info         storage.MediaInfo
	metadata     storage.MediaMetadata
}

func (a *app) putCommand() *cobra.Command {
	p := &put{app: a}
	cmd := &cobra.Command{
		Use:   "put FILE…",
		Short: "Store files and print their IDs",
		Long: `Store files, or standard input where FILE is -, and print one line for each: the
ID, whether the bytes are new or shared with what was there, the size, and the
path below the store. Makes the store where there is none.

What has been printed survives a power cut. A file that cannot be stored is
reported, and the others are stored all the same. With -r, a directory stands for
every regular file below it, hidden ones included, in order of their names;
symbolic links in it are skipped.

Each file gets the label file_name, which 'mediabolt get' and 'mediabolt ls' use,
unless you give that label yourself. Type and MIME type are found from the bytes
unless given.

With --dedup-scope, equal bytes are kept once within each user or session only, and
what is stored for one tells nothing of what others have; without --user, or
--session, each file is then a copy of its own. It holds for what this command
stores: say it each time.

--quota, --user-quota, --session-quota and --min-free refuse what would pass them,
before a byte of it is written. They too hold for this command alone.

Without --policy it is kept for ever. ` + policiesHelp + `

With --wrap-pcm, raw PCM is stored as WAV files, which play everywhere. Its --mime is
audio/pcm (little-endian), or audio/L8, audio/L16 or audio/L24 (big-endian), with
parameters rate, bits, channels and endianness where it is not of 24000 Hz, 16 bits
and one channel. The label converted_from keeps that type.`,
		Example: `  mediabolt put photo.png
  mediabolt put --session s1 --conversation c1 --message 3 *.png
  mediabolt put -r --label project=sunrise pictures/
  curl -s https://example.org/a.mp3 | mediabolt put --type audio --label file_name=a.mp3 -
  mediabolt put --wrap-pcm --mime 'audio/pcm;rate=16000' speech.pcm
  mediabolt put --json photo.png | jq -r .id`,
		Args: some("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("dedup") && cmd.Flags().Changed("no-dedup") {
				return usagef("--dedup and --no-dedup exclude each other")
			}
			if cmd.Flags().Changed("dedup-scope") && (p.noDedup || !p.dedup) {
				return usagef("--dedup-scope and --no-dedup exclude each other")
			}
			return p.run(cmd.Context(), args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVarP(&p.recursive, "recursive", "r", false, "store the files below directories")
	flags.StringVar(&p.metadata.SessionID, "session", "", "session `ID`")
	flags.StringVar(&p.metadata.ConversationID, "conversation", "", "conversation `ID`")
	flags.StringVar(&p.metadata.RunID, "run", "", "run `ID`")
	flags.StringVar(&p.metadata.UserID, "user", "", "user `ID`")
	flags.IntVar(&p.metadata.MessageIndex, "message", 0, "index `N` of the message in its conversation")
	flags.IntVar(&p.metadata.ContentIndex, "content", 0, "index `N` of the content in its message")
	flags.StringVar(&p.info.Type, "type", "", "`KIND` of media: image, audio, video, document, or a word of your own")
	flags.StringVar(&p.info.MimeType, "mime", "", "MIME `TYPE`, such as image/png")
	flags.StringVar(&p.metadata.Policy, "policy", "", "retention `POLICY`, such as retain-30days; none keeps for ever")
	flags.StringArrayVar(&p.labels, "label", nil, "label `KEY=VALUE`; may be given again")
	flags.BoolVar(&p.dedup, "dedup", true, "keep equal bytes once")
	flags.BoolVar(&p.noDedup, "no-dedup", false, "keep a copy of its own for each file")
	flags.StringVar(&p.scope, "dedup-scope", string(engine.ScopeGlobal), "`SCOPE` within which equal bytes are kept once: global, per-user or per-session")
	flags.BoolVar(&p.wrapPCM, "wrap-pcm", false, "store raw PCM, of the type that --mime gives, as WAV")
	flags.StringVar(&p.organization, "organization", "", "`MODE` of the directories of new files: flat, by-conversation, by-session (default) or by-run")
	p.limits.addTo(cmd)
	completeFlag(cmd, "organization", modeNames()...)
	completeFlag(cmd, "dedup-scope", scopeNames()...)
	completeFlag(cmd, "policy", somePolicies...)
	return cmd
}

func (p *put) run(ctx context.Context, args []string) error {
	if err := p.check(); err != nil {
		return err
	}
	dir, err := p.app.storeDir()
	if err != nil {
		return err
	}
	sources := p.app.gather(ctx, args, dir, p.recursive)
	// A store is not made for the sake of nothing.
	usable := false
	for _, s := range sources {
		usable = usable || s.err == nil
	}
	if !usable {
		return p.each(ctx, sources, func(s *source) error { return s.err })
	}
	config := engine.FileStoreConfig{
		EnableDeduplication: p.dedup && !p.noDedup,
		DedupScope:          engine.DedupScope(p.scope),
		WrapPCM:             p.wrapPCM,
		Quota:               p.limits.quota,
		MinFreeBytes:        p.limits.minFree,
		Organization:        storage.OrganizationMode(p.organization),
	}
	fresh := !isStore(dir)
	return p.app.withStore(ctx, config, func(store *engine.FileStore) error {
		if fresh { // which a slip of --store may have made it
			p.app.note("made a new store in %s", dir)
		}
		show := p.app.newProgress("storing", "")
		show.total = totalSize(sources)
		defer show.clear()
		return p.each(ctx, sources, func(s *source) error { return p.one(ctx, store, s, show) })
	})
}

func (p *put) each(ctx context.Context, sources []source, do func(*source) error) error {
	if len(sources) == 0 {
		p.app.note("no files to store")
		return nil
	}
	return p.app.each(ctx, len(sources), "files", func(i int) string { return sources[i].name },
		func(i int) error { return do(&sources[i]) })
}

// check judges what the flags say before anything is opened.
func (p *put) check() error {
	labels, err := parseLabels(p.labels)
	if err != nil {
		return err
	}
	p.metadata.Labels = labels
	if p.organization != "" {
		if err := storage.OrganizationMode(p.organization).Validate(); err != nil {
			return usagef("--organization %q: want one of %s", p.organization, strings.Join(modeNames(), ", "))
		}
	}
	if !slices.Contains(scopeNames(), p.scope) {
		return usagef("--dedup-scope %q: want one of %s", p.scope, strings.Join(scopeNames(), ", "))
	}
	if p.info.MimeType != "" {
		if _, _, err := mime.ParseMediaType(p.info.MimeType); err != nil {
			return usagef("--mime %q: %v", p.info.MimeType, err)
		}
	}
	if p.wrapPCM {
		if err := p.checkPCM(); err != nil {
			return err
		}
	}
	if err := p.limits.check(); err != nil {
		return err
	}
	if p.metadata.Policy != "" {
		if err := checkPolicy(p.metadata.Policy); err != nil {
			return err
		}
	}
	if err := p.metadata.Validate(); err != nil {
		return err
	}
	return p.info.Validate()
}

// checkPCM refuses --wrap-pcm for what it would not wrap.
func (p *put) checkPCM() error {
	is, err := engine.IsPCM(p.info.MimeType)
	if err != nil {
		return usagef("--mime: %v", err)
	}
	if !is {
		return usagef("--wrap-pcm with --mime %q: say which raw PCM it is, such as --mime 'audio/pcm;rate=24000;bits=16;channels=1' or 'audio/L16;rate=44100;channels=2'", p.info.MimeType)
	}
	return nil
}

// putRecord is what put prints of a file in JSON.
type putRecord struct {
	Source string `json:"source"` // as named on the command line or found below it; - for standard input
	Shared bool   `json:"shared"` // the bytes were there already
	entryRecord
}

// one stores one source and prints what became of it.
func (p *put) one(ctx context.Context, store *engine.FileStore, s *source, show *progress) error {
	if s.err != nil {
		show.clear()
		return s.err
	}
	in, err := p.open(ctx, s)
	if err != nil {
		show.clear()
		return err
	}
	ref, err := store.StoreReader(ctx, watchedReader{in, show}, p.info, p.metadataOf(s))
	closed := in.Close()
	show.clear()
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if closed != nil {
		p.app.note("%s is stored; closing it: %v", s.name, closed)
	}
	entry, err := store.Stat(ctx, ref)
	if err != nil {
		return fmt.Errorf("%s is stored as %s: %w", s.name, ref.ID, err)
	}
	if err := p.print(s, &entry); err != nil {
		return fmt.Errorf("%s is stored as %s: %w", s.name, ref.ID, err)
	}
	return nil
}

func (p *put) open(ctx context.Context, s *source) (io.ReadCloser, error) {
	if s.name == standardInput {
		return interruptible(ctx, p.app.stdin), nil
	}
	return os.Open(s.name)
}

func (p *put) metadataOf(s *source) storage.MediaMetadata {
	m := p.metadata
	if _, given := m.Labels[fileNameLabel]; given || s.name == standardInput {
		return m
	}
	m.Labels = maps.Clone(m.Labels)
	name := strings.ToValidUTF8(filepath.Base(s.name), "_")
	if p.wrapPCM {
		name += ".wav"
	}
	m.Labels[fileNameLabel] = name
	return m
}

func (p *put) print(s *source, e *engine.Entry) error {
	shared := e.Refs > 1
	if p.app.asJSON {
		return p.app.printJSON(putRecord{Source: s.name, Shared: shared, entryRecord: recordOf(e)})
	}
	state := "new"
	if shared {
		state = "shared"
	}
	name := s.name
	if name == standardInput {
		name = "standard input"
	}
	_, err := fmt.Fprintf(p.app.stdout, "%s  %-6s  %s  %s -> %s\n", e.Reference.ID, state, size(e.Size), plain(name), plain(e.Path))
	return err
}

func modeNames() []string {
	var names []string
	for _, mode := range storage.OrganizationModes() {
		names = append(names, string(mode))
	}
	return names
}

func scopeNames() []string {
	var names []string
	for _, scope := range engine.DedupScopes() {
		names = append(names, string(scope))
	}
	return names
}

// parseLabels reads the --label flags.
func parseLabels(flags []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, flag := range flags {
		key, value, ok := strings.Cut(flag, "=")
		if !ok || key == "" {
			return nil, usagef("--label %q: want KEY=VALUE", flag)
		}
		if _, twice := labels[key]; twice {
			return nil, usagef("--label %s is given twice", key)
		}
		labels[key] = value
	}
	return labels, nil
}
