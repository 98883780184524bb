package engine_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// slowIndex keeps additions of one session waiting.
type slowIndex struct {
	engine.Index
	session          string
	entered, release chan struct{}
}

func (x *slowIndex) Add(ctx context.Context, add *storage.Addition) (storage.BlobRow, error) {
	if add.Ref.Metadata.SessionID == x.session {
		x.entered <- struct{}{}
		<-x.release
	}
	return x.Index.Add(ctx, add)
}

// A backup waits for the changes that began before its moment, and has them; others
// do not wait meanwhile.
func TestBackupWaitsForWhatIsUnderWay(t *testing.T) {
	slow := &slowIndex{session: "slow", entered: make(chan struct{}), release: make(chan struct{})}
	config := engine.WithSeams(engine.FileStoreConfig{BaseDir: filepath.Join(t.TempDir(), "store"), EnableDeduplication: true},
		func(x engine.Index, b engine.Blobs) (engine.Index, engine.Blobs) {
			slow.Index = x
			return slow, b
		})
	f := mustOpen(t, config)
	release := sync.OnceFunc(func() { close(slow.release) })
	t.Cleanup(release) // before the store is closed
	stored := make(chan *storage.StorageReference, 1)
	go func() {
		ref, _ := f.Store(context.Background(), content(small), storage.MediaMetadata{SessionID: "slow"})
		stored <- ref
	}()
	<-slow.entered
	dest := filepath.Join(t.TempDir(), "dest")
	made := make(chan error, 1)
	go func() {
		_, err := f.Backup(context.Background(), dest, engine.BackupOptions{})
		made <- err
	}()
	select {
	case err := <-made:
		t.Fatalf("made while a change that began before it is under way: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	mustStore(t, f, other, storage.MediaMetadata{SessionID: "quick"})
	release()
	ref := <-stored
	require.NotNil(t, ref)
	require.NoError(t, <-made)
	require.Contains(t, openedBackup(t, dest), ref.ID)
}
