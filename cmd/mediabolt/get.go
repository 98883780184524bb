package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// get is one run of the command get.
type get struct {
	app    *app
	output string
	force  bool
}

func (a *app) getCommand() *cobra.Command {
	g := &get{app: a}
	cmd := &cobra.Command{
		Use:   "get ID",
		Short: "Write stored bytes to a file",
		Long: `Write what was stored as ID to a file. The file appears under its name only once
all of its bytes were checked and are on disk; damaged bytes leave nothing behind.

Without -o, and where -o names a directory, the file is called what the label
file_name says (characters that could mislead are replaced), or else what the
store calls it. A file that exists is not overwritten without --force.`,
		Example: `  mediabolt get ID -o photo.png
  mediabolt get ID -o pictures/
  mediabolt get ID`,
		Args:              exactly(1, "ID"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return g.run(cmd.Context(), args[0]) },
	}
	cmd.Flags().StringVarP(&g.output, "output", "o", "", "`FILE` to write, or directory to write into")
	cmd.Flags().BoolVarP(&g.force, "force", "f", false, "overwrite a file that exists")
	return cmd
}

// getRecord is what get prints in JSON.
type getRecord struct {
	ID       string `json:"id"`
	File     string `json:"file"` // as -o and the working directory make it
	Size     int64  `json:"size"` // bytes
	MimeType string `json:"mime_type"`
	SHA256   string `json:"sha256"`
}

func (g *get) run(ctx context.Context, id string) error {
	if g.output == "-" {
		return usagef("-o -: 'mediabolt cat %s' writes to standard output", id)
	}
	ref := &storage.StorageReference{ID: id}
	return g.app.withExisting(ctx, func(store *engine.FileStore) error {
		entry, err := store.Stat(ctx, ref)
		if err != nil {
			return &itemError{err, id}
		}
		target, err := g.target(&entry)
		if err != nil {
			return err
		}
		if err := g.save(ctx, store, ref, target); err != nil {
			return &itemError{err, id}
		}
		if g.app.asJSON {
			return g.app.printJSON(getRecord{entry.Reference.ID, target, entry.Size, entry.MimeType, entry.Digest.String()})
		}
		_, err = fmt.Fprintf(g.app.stdout, "%s  %s  %s\n", entry.Reference.ID, size(entry.Size), plain(target))
		return err
	})
}

// target is the file to write.
func (g *get) target(e *engine.Entry) (string, error) {
	name := fileName(e.Metadata.Labels[fileNameLabel])
	if name == "" {
		name = path.Base(e.Path)
	}
	if g.output == "" {
		return name, nil
	}
	info, err := os.Stat(g.output)
	if err == nil && info.IsDir() {
		return filepath.Join(g.output, name), nil
	}
	dir := filepath.Dir(g.output)
	if os.IsPathSeparator(g.output[len(g.output)-1]) {
		dir = g.output
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", hinted(fmt.Errorf("-o %s: there is no directory %s", g.output, dir), "make it first")
	}
	return g.output, nil
}

// fileName is a label as the name of a file in the directory at hand: nothing in
// it leads elsewhere, hides the file or is special to a shell or a system. It is
// empty where nothing useful remains.
func fileName(label string) string {
	name := label[strings.LastIndexAny(label, `/\`)+1:]
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar || strings.ContainsRune(`<>:"|?*`, r) {
			return '_'
		}
		return r
	}, name)
	name = strings.TrimRight(strings.TrimSpace(name), ". ")
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") {
		name = "_" + name[1:]
	}
	// 200 bytes leave room for what file systems and save add.
	if len(name) > 200 || !filepath.IsLocal(name) {
		return ""
	}
	return name
}

// save writes a blob to target.
func (g *get) save(ctx context.Context, store *engine.FileStore, ref *storage.StorageReference, target string) (err error) {
	return saveFile(target, g.force, func(f *os.File) error { return g.app.copyBlob(ctx, store, ref, f) })
}
