// Package storage is the vocabulary of mediabolt: the service interface, what
// goes in and out of it, the rows that an index keeps, and the errors. It
// holds no behaviour beyond checking and printing its own values, and imports
// the standard library alone.
package storage

import "context"

// MediaStorageService stores media and gives it back by reference. Every
// method is safe for concurrent use and honours ctx.
type MediaStorageService interface {
	// Store keeps content and returns a reference that is durable when Store
	// returns. An error means that nothing was kept. Errors: ErrInvalidMedia,
	// ErrTooLarge, ErrDiskSpace, ErrPermission, ErrIO, ErrClosed.
	Store(ctx context.Context, content *MediaContent, metadata MediaMetadata) (*StorageReference, error)

	// Retrieve returns the content of ref, its Data in standard base64.
	// Errors: ErrInvalidRef, ErrNotFound, ErrCorrupted, ErrPermission,
	// ErrIO, ErrClosed.
	Retrieve(ctx context.Context, ref *StorageReference) (*MediaContent, error)

	// Delete ends ref, and its blob when no other reference shares it. A
	// reference that is not there is success. Errors: ErrInvalidRef, ErrHeld,
	// ErrDiskSpace, ErrPermission, ErrIO, ErrClosed.
	Delete(ctx context.Context, ref *StorageReference) error
}
