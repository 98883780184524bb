package engine_test

import (
	"context"
	"fmt"
	"log"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// Each reference has a policy of its own, and the longest-lived one keeps bytes that
// are shared.
func ExampleFileStore_Expire() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()
	put := func(policy string) *storage.StorageReference {
		ref, err := store.Store(ctx, &storage.MediaContent{MimeType: "image/png", Data: "AAAA"}, storage.MediaMetadata{Policy: policy})
		if err != nil {
			log.Fatal(err)
		}
		return ref
	}
	put("retain-30days")
	put("2001-01-01T00:00:00Z") // is over

	done, err := store.Expire(ctx, engine.ExpireOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d ended, %d blobs went\n", done.References, done.Blobs)
	// Output:
	// 1 ended, 0 blobs went
}

// Retain changes a policy after the fact.
func ExampleFileStore_Retain() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()
	ref, err := store.Store(ctx, &storage.MediaContent{MimeType: "image/png", Data: "AAAA"}, storage.MediaMetadata{Policy: "delete-after-10min"})
	if err != nil {
		log.Fatal(err)
	}
	entry, err := store.Retain(ctx, ref, "2090-01-01T00:00:00Z")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("kept until", entry.ExpiresAt.Year())
	// Output:
	// kept until 2090
}

// Explain says why something is kept, and what deleting it would do.
func ExampleFileStore_Explain() {
	ctx := context.Background()
	store, cleanup := exampleStore()
	defer cleanup()
	var ref *storage.StorageReference
	for _, policy := range []string{"2090-01-01T00:00:00Z", "retain"} {
		var err error
		ref, err = store.Store(ctx, &storage.MediaContent{MimeType: "image/png", Data: "AAAA"}, storage.MediaMetadata{Policy: policy})
		if err != nil {
			log.Fatal(err)
		}
	}
	why, err := store.Explain(ctx, ref)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("policy:", why.Entry.Metadata.Policy)
	fmt.Printf("others: %d, the longest until %d\n", why.Others, why.Longest.ExpiresAt.Year())
	fmt.Println("deletion:", why.Deletion)
	// Output:
	// policy: retain
	// others: 1, the longest until 2090
	// deletion: keeps_bytes
}
