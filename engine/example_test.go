package engine_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// exampleStore opens a new store with dedup for an example. Calling cleanup
// closes and removes it.
func exampleStore() (store *engine.FileStore, cleanup func()) {
	dir, err := os.MkdirTemp("", "mediabolt-example")
	if err != nil {
		log.Fatal(err)
	}
	store, err = engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true})
	if err != nil {
		log.Fatal(err)
	}
	return store, func() {
		if err := errors.Join(store.Close(), os.RemoveAll(dir)); err != nil {
			log.Fatal(err)
		}
	}
}

// A store is a directory. What Store returned a reference for is durable, and
// Retrieve gives it back, verified.
func ExampleOpen() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "mediabolt-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	store, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	// As a model's API returns a picture: base64, or a data: URL.
	ref, err := store.Store(ctx, &storage.MediaContent{
		Type:     "image",
		MimeType: "image/png",
		Data:     base64.StdEncoding.EncodeToString([]byte("the bytes of a picture")),
	}, storage.MediaMetadata{SessionID: "session-xyz", ConversationID: "conv-123"})
	if err != nil {
		log.Fatal(err)
	}

	// The ID is all that an application has to remember.
	content, err := store.Retrieve(ctx, &storage.StorageReference{ID: ref.ID})
	if err != nil {
		log.Fatal(err)
	}
	data, err := base64.StdEncoding.DecodeString(content.Data)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, %s: %s\n", content.Type, content.MimeType, data)
	fmt.Println(strings.Replace(ref.Metadata["path"], ref.ID, "<ID>", 1))
	// Output:
	// image, image/png: the bytes of a picture
	// session-xyz/conv-123/<ID>.png
}

// Content of any size is streamed in, in constant memory. Without a declared
// MIME type it is recognised by its first bytes.
func ExampleFileStore_StoreReader() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()

	file, err := os.Open("../testdata/media/tone.wav")
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()

	ref, err := store.StoreReader(ctx, file, storage.MediaInfo{}, storage.MediaMetadata{
		SessionID: "session-xyz",
		Labels:    map[string]string{"file": "tone.wav"},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ref.Metadata["type"], ref.Metadata["mime_type"], ref.Metadata["size"], "bytes")
	// Output: audio audio/wav 24044 bytes
}

// Open gives a handle that reads, seeks and serves HTTP ranges through
// http.ServeContent, in constant memory.
func ExampleFileStore_Open() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()
	ref, err := store.StoreReader(ctx, strings.NewReader("once upon a time"), storage.MediaInfo{MimeType: "text/plain"}, storage.MediaMetadata{})
	if err != nil {
		log.Fatal(err)
	}

	blob, err := store.Open(ctx, ref)
	if err != nil {
		log.Fatal(err)
	}
	defer blob.Close()
	if _, err := blob.Seek(-4, io.SeekEnd); err != nil {
		log.Fatal(err)
	}
	end, err := io.ReadAll(blob)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, %d bytes, ends in %q\n", blob.MimeType(), blob.Size(), end)
	// Output: text/plain, 16 bytes, ends in "time"
}

// With dedup, equal bytes are kept once. Deleting one reference never harms
// another; the file goes with the last.
func ExampleFileStore_Delete() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()
	put := func(session string) *storage.StorageReference {
		ref, err := store.StoreReader(ctx, strings.NewReader("a shared picture"), storage.MediaInfo{}, storage.MediaMetadata{SessionID: session})
		if err != nil {
			log.Fatal(err)
		}
		return ref
	}
	alice, bob := put("alice"), put("bob")
	fmt.Println("one file for both:", alice.Metadata["path"] == bob.Metadata["path"])

	for range 2 { // deleting twice is deleting once
		if err := store.Delete(ctx, alice); err != nil {
			log.Fatal(err)
		}
	}
	_, err := store.Retrieve(ctx, alice)
	fmt.Println("alice's is gone:", errors.Is(err, storage.ErrNotFound))
	_, err = store.Retrieve(ctx, bob)
	fmt.Println("bob's is there:", err == nil)
	// Output:
	// one file for both: true
	// alice's is gone: true
	// bob's is there: true
}

// List goes through references, oldest first or newest first; a query narrows it.
func ExampleFileStore_List() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()
	for i, text := range []string{"first", "second", "third"} {
		_, err := store.StoreReader(ctx, strings.NewReader(text), storage.MediaInfo{}, storage.MediaMetadata{
			SessionID: "session-xyz", ConversationID: fmt.Sprint("conv-", i%2), MessageIndex: i,
		})
		if err != nil {
			log.Fatal(err)
		}
	}

	for entry, err := range store.List(ctx, engine.Query{ConversationID: "conv-0"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("message", entry.Metadata.MessageIndex, "has", entry.Size, "bytes")
	}
	// Output:
	// message 0 has 5 bytes
	// message 2 has 5 bytes
}

// A cursor continues a list, as for the pages of a web application: it is text, and
// stays good while others store and delete.
func ExampleQuery_After() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()
	for i := range 5 {
		_, err := store.StoreReader(ctx, strings.NewReader("picture"), storage.MediaInfo{MimeType: "image/png"}, storage.MediaMetadata{MessageIndex: i})
		if err != nil {
			log.Fatal(err)
		}
	}

	query := engine.Query{MimeType: "image/", Order: engine.Newest, Limit: 2}
	for page := 1; page <= 3; page++ {
		for entry, err := range store.List(ctx, query) {
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println("page", page, "message", entry.Metadata.MessageIndex)
			query.Cursor = query.After(&entry)
		}
	}
	// Output:
	// page 1 message 4
	// page 1 message 3
	// page 2 message 2
	// page 2 message 1
	// page 3 message 0
}

// References tells everyone who has the same bytes.
func ExampleFileStore_References() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()
	var ref *storage.StorageReference
	for _, user := range []string{"alice", "bob"} {
		var err error
		ref, err = store.StoreReader(ctx, strings.NewReader("the same"), storage.MediaInfo{}, storage.MediaMetadata{UserID: user})
		if err != nil {
			log.Fatal(err)
		}
	}

	digest, err := storage.ParseDigest(ref.Metadata["sha256"])
	if err != nil {
		log.Fatal(err)
	}
	for entry, err := range store.References(ctx, digest) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(entry.Metadata.UserID)
	}
	// Output:
	// alice
	// bob
}

// FS shows the store as a file system, here by conversation although its files are
// by session, for all that works on one: http.FileServerFS, tar.Writer.AddFS.
func ExampleFileStore_FS() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()
	for _, conversation := range []string{"cats", "dogs", "cats"} {
		_, err := store.StoreReader(ctx, strings.NewReader(conversation), storage.MediaInfo{}, storage.MediaMetadata{
			SessionID: "session-xyz", ConversationID: conversation,
		})
		if err != nil {
			log.Fatal(err)
		}
	}

	entries, err := fs.ReadDir(store.FS(storage.OrganizationByConversation), ".")
	if err != nil {
		log.Fatal(err)
	}
	for _, entry := range entries {
		files, err := fs.Glob(store.FS(storage.OrganizationByConversation), entry.Name()+"/*.txt")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(entry.Name(), len(files))
	}
	// Output:
	// cats 2
	// dogs 1
}

// Stats tells what is stored, and what dedup saved.
func ExampleFileStore_Stats() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()
	for range 3 {
		picture := bytes.NewReader(make([]byte, 1000))
		if _, err := store.StoreReader(ctx, picture, storage.MediaInfo{}, storage.MediaMetadata{}); err != nil {
			log.Fatal(err)
		}
	}

	stats, err := store.Stats(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(stats.References, "references to", stats.Blobs, "blob")
	fmt.Println(stats.PhysicalBytes, "bytes on disk,", stats.SavedBytes, "saved")
	// Output:
	// 3 references to 1 blob
	// 1000 bytes on disk, 2000 saved
}

// Verify checks every promise of the store. Without a finding of
// storage.SeverityDamage all is well.
func ExampleFileStore_Verify() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()
	if _, err := store.StoreReader(ctx, strings.NewReader("precious"), storage.MediaInfo{}, storage.MediaMetadata{}); err != nil {
		log.Fatal(err)
	}

	damaged := 0
	for finding, err := range store.Verify(ctx, engine.VerifyOptions{}) {
		if err != nil {
			log.Fatal(err)
		}
		if finding.Severity == storage.SeverityDamage {
			damaged++
			fmt.Println(finding.Kind, finding.Path, finding.Detail)
		}
	}
	fmt.Println("damaged:", damaged)
	// Output: damaged: 0
}

// A repair is planned, and then done. It moves files to the quarantine, from where
// they can be brought back.
func ExampleFileStore_Repair() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "mediabolt-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	if _, err := store.StoreReader(ctx, strings.NewReader("precious"), storage.MediaInfo{}, storage.MediaMetadata{}); err != nil {
		log.Fatal(err)
	}
	// A file with the name of a blob, that no row names.
	orphan := filepath.Join(dir, "a7f3f7-06h0aeyy8hrzvc6fkc554h3rsg.png")
	if err := os.WriteFile(orphan, []byte("whose?"), 0o600); err != nil {
		log.Fatal(err)
	}

	plan, err := store.PlanRepair(ctx, engine.RepairOptions{MaxShare: 50})
	if err != nil {
		log.Fatal(err)
	}
	for _, item := range plan.Items {
		fmt.Println("would", item.Action, item.Path)
	}
	for result, err := range store.Repair(ctx, plan) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("done:", result.Done)
	}
	for item, err := range store.Quarantine(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("in quarantine:", item.Path, item.Kind)
	}
	// Output:
	// would quarantine a7f3f7-06h0aeyy8hrzvc6fkc554h3rsg.png
	// done: true
	// in quarantine: a7f3f7-06h0aeyy8hrzvc6fkc554h3rsg.png orphan
}

// Compact gives back the room of what was deleted, and leaves nothing of it in the
// index.
func ExampleFileStore_Compact() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()
	ref, err := store.StoreReader(ctx, strings.NewReader("passing"), storage.MediaInfo{}, storage.MediaMetadata{SessionID: "s1"})
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Delete(ctx, ref); err != nil {
		log.Fatal(err)
	}

	plan, err := store.Compact(ctx, engine.CompactOptions{DryRun: true})
	if err != nil {
		log.Fatal(err)
	}
	done, err := store.Compact(ctx, engine.CompactOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("took no more room than it said:", done.After <= plan.Need)
	// Output: took no more room than it said: true
}

// A listener is told of what happens, after the fact. Functions that are left out
// cost nothing.
func ExampleEventListener() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "mediabolt-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	store, err := engine.Open(ctx, engine.FileStoreConfig{
		BaseDir: dir, EnableDeduplication: true,
		EventListener: &engine.EventListener{
			Stored: func(e engine.Event) { fmt.Println("stored", e.Bytes, "bytes") },
			Shared: func(e engine.Event) { fmt.Println("shared", e.Bytes, "bytes") },
			Failed: func(e engine.Event) { fmt.Println("failed to", e.Operation, "for", e.Class) },
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	for range 2 {
		if _, err := store.StoreReader(ctx, strings.NewReader("twice the same"), storage.MediaInfo{}, storage.MediaMetadata{}); err != nil {
			log.Fatal(err)
		}
	}
	_, _ = store.Retrieve(ctx, &storage.StorageReference{ID: "no ID"})

	stats, err := store.Stats(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(stats.Latencies.Store.Count, "new,", stats.Latencies.Store.P99 <= stats.Latencies.Store.Max)
	// Output:
	// stored 14 bytes
	// shared 14 bytes
	// failed to retrieve for invalid_ref
	// 1 new, true
}

// URL leads other programs on the machine to the file.
func ExampleFileStore_URL() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()
	ref, err := store.StoreReader(ctx, strings.NewReader("look at me"), storage.MediaInfo{MimeType: "text/plain"},
		storage.MediaMetadata{SessionID: "my session"})
	if err != nil {
		log.Fatal(err)
	}

	to, err := store.URL(ctx, ref)
	if err != nil {
		log.Fatal(err)
	}
	_, path, _ := strings.Cut(to, "/my%20session/")
	fmt.Println(to[:8], strings.Replace(path, ref.ID, "<ID>", 1))
	// Output: file:/// no-conversation/<ID>.txt
}

// Usage tells who takes how much, and what deleting a group would free.
func ExampleFileStore_Usage() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()
	for _, session := range []string{"morning", "evening"} {
		for _, text := range []string{"the same in both", "only this " + session} {
			_, err := store.StoreReader(ctx, strings.NewReader(text), storage.MediaInfo{}, storage.MediaMetadata{SessionID: session})
			if err != nil {
				log.Fatal(err)
			}
		}
	}
	report, err := store.Usage(ctx, engine.UsageBySession)
	if err != nil {
		log.Fatal(err)
	}
	for _, u := range append(report.Groups, report.Total) {
		fmt.Printf("%q: %d references, %d bytes, %d of its own, %d shared\n", u.Group, u.References, u.LogicalBytes, u.ExclusiveBytes, u.SharedBytes)
	}
	// Output:
	// "evening": 2 references, 33 bytes, 17 of its own, 16 shared
	// "morning": 2 references, 33 bytes, 17 of its own, 16 shared
	// "": 4 references, 66 bytes, 34 of its own, 16 shared
}

// A quota refuses what would pass it, and says its figures.
func ExampleQuota() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "mediabolt-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: dir, Quota: engine.Quota{UserBytes: 20}})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	user := storage.MediaMetadata{UserID: "ada"}
	for range 2 {
		_, err = store.StoreReader(ctx, strings.NewReader("twelve bytes"), storage.MediaInfo{}, user)
	}
	var limit *engine.LimitError
	if errors.As(err, &limit) && errors.Is(err, storage.ErrDiskSpace) {
		fmt.Println(limit)
	}
	// Output:
	// insufficient disk space: the quota of user "ada" is 20 bytes: 12 are used, 12 more were asked for
}

// A hold keeps what a session has, and will have, from being deleted.
func ExampleFileStore_Hold() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()
	ref, err := store.StoreReader(ctx, strings.NewReader("evidence"), storage.MediaInfo{}, storage.MediaMetadata{SessionID: "s1"})
	if err != nil {
		log.Fatal(err)
	}

	session := engine.HoldTarget{Kind: engine.HoldSession, ID: "s1"}
	if err := store.Hold(ctx, engine.Hold{Name: "case 17", Target: session, Reason: "order of the court", By: "legal"}); err != nil {
		log.Fatal(err)
	}
	err = store.Delete(ctx, ref)
	_, why, _ := strings.Cut(err.Error(), ref.ID+": ")
	fmt.Println(errors.Is(err, storage.ErrHeld), why)

	for hold, err := range store.Holds(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(hold.Name, "for", hold.Reason)
	}
	if _, err := store.Release(ctx, "case 17", session); err != nil {
		log.Fatal(err)
	}
	fmt.Println(store.Delete(ctx, ref))
	// Output:
	// true media is held: by hold "case 17" on session "s1"
	// case 17 for order of the court
	// <nil>
}

// An index that is lost comes back from the files and their sidecars.
func ExampleRebuild() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "media")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // only an example
	store, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: dir})
	if err != nil {
		log.Fatal(err)
	}
	ref, err := store.StoreReader(ctx, strings.NewReader("hello"), storage.MediaInfo{MimeType: "text/plain"},
		storage.MediaMetadata{SessionID: "s1", Labels: map[string]string{"n": "1"}})
	if err = errors.Join(err, store.Close(), os.Remove(filepath.Join(dir, ".mediabolt", "index.db"))); err != nil {
		log.Fatal(err)
	}

	result, err := engine.Rebuild(ctx, engine.FileStoreConfig{BaseDir: dir}, engine.RebuildOptions{Deep: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.References, "reference to", result.Blobs, "blob")

	store, err = engine.Open(ctx, engine.FileStoreConfig{BaseDir: dir})
	if err != nil {
		log.Fatal(err)
	}
	entry, err := store.Stat(ctx, ref)
	if err = errors.Join(err, store.Close()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(entry.Metadata.SessionID, entry.Metadata.Labels["n"])
	// Output:
	// 1 reference to 1 blob
	// s1 1
}
