package adopt_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/engine/adopt"
)

// A folder of media moves in. Sessions and conversations are told by its paths, and
// what knows a file by its path finds it in the store.
func ExampleAdopt() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "mediabolt-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	photo := filepath.Join(dir, "old", "session-xyz", "conv-123", "photo.txt")
	if err := os.MkdirAll(filepath.Dir(photo), 0o700); err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(photo, []byte("the bytes of a photo"), 0o600); err != nil {
		log.Fatal(err)
	}
	store, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: filepath.Join(dir, "store"), EnableDeduplication: true})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	for range 2 { // the second run adds nothing
		options := adopt.Options{Dir: filepath.Join(dir, "old"), Pattern: "{session}/{conversation}/*"}
		for item, err := range adopt.Adopt(ctx, store, options) {
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println(item.State, item.Path)
		}
	}
	ref, err := store.Resolve(ctx, photo)
	if err != nil {
		log.Fatal(err)
	}
	entry, err := store.Stat(ctx, ref)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(entry.Metadata.SessionID, entry.Metadata.ConversationID, entry.Size, "bytes")
	// Output:
	// taken session-xyz/conv-123/photo.txt
	// known session-xyz/conv-123/photo.txt
	// session-xyz conv-123 20 bytes
}

// The index of a store as one JSON file, for tools that read that.
func ExampleDump() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "mediabolt-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	dumped, err := adopt.Dump(ctx, store, os.Stdout)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(dumped.Blobs, "blobs")
	// Output:
	// {
	// }
	// 0 blobs
}
