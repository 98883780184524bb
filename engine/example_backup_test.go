package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// Backup makes a directory a store that shows this one at one moment; Restore makes
// another store of it.
func ExampleFileStore_Backup() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()
	dir, err := os.MkdirTemp("", "mediabolt-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ref, err := store.StoreReader(ctx, strings.NewReader("precious"), storage.MediaInfo{}, storage.MediaMetadata{})
	if err != nil {
		log.Fatal(err)
	}

	saved := filepath.Join(dir, "saved")
	made, err := store.Backup(ctx, saved, engine.BackupOptions{Copy: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(made.Blobs, "blob,", made.CopiedBytes, "bytes copied")
	if err := store.Delete(ctx, ref); err != nil {
		log.Fatal(err)
	}

	restored := filepath.Join(dir, "restored")
	if _, err := engine.Restore(ctx, saved, restored, engine.RestoreOptions{}); err != nil {
		log.Fatal(err)
	}
	back, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: restored})
	if err != nil {
		log.Fatal(err)
	}
	defer back.Close()
	blob, err := back.Open(ctx, ref)
	if err != nil {
		log.Fatal(err)
	}
	defer blob.Close()
	fmt.Println(blob.Size(), "bytes are back")
	// Output:
	// 1 blob, 8 bytes copied
	// 8 bytes are back
}

// Export writes references and their bytes as a stream, Import adds them to another
// store, where they have the same IDs.
func ExampleFileStore_Export() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()
	ref, err := store.StoreReader(ctx, strings.NewReader("precious"), storage.MediaInfo{}, storage.MediaMetadata{SessionID: "s1"})
	if err != nil {
		log.Fatal(err)
	}
	var archive bytes.Buffer // or a file, or a pipe
	if _, err := store.Export(ctx, &archive, engine.Query{SessionID: "s1"}); err != nil {
		log.Fatal(err)
	}

	other, cleanup := exampleStore()
	defer cleanup()
	for range 2 { // the second adds nothing
		done, err := other.Import(ctx, bytes.NewReader(archive.Bytes()))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(done.References, "added,", done.Present, "there already")
	}
	_, err = other.Stat(ctx, ref)
	fmt.Println("not there:", errors.Is(err, storage.ErrNotFound))
	// Output:
	// 1 added, 0 there already
	// 0 added, 1 there already
	// not there: false
}
