package engine

import (
	"fmt"

	"github.com/mediabolt/mediabolt/storage"
)

// idOf is the ID of a reference to a blob, or ErrCorrupted where the blob's path has
// not the name of one.
func idOf(blob *storage.BlobRow, ref storage.UUID) (storage.ID, error) {
	id, err := storage.ParseID(blob.NameHash() + "-" + ref.String())
	if err != nil {
		err = fmt.Errorf("%w: blob %s: path %q has no name of a blob", storage.ErrCorrupted, blob.Key, blob.Path)
	}
	return id, err
}
