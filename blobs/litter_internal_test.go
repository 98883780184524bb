package blobs

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

func TestLitter(t *testing.T) {
	id := "a7f3f7-06h0aeyy8hrzvc6fkc554h3rsg"
	for name, want := range map[string]string{
		".DS_Store":                             ".DS_Store",
		"s1/.DS_Store":                          "s1/.DS_Store",
		"s1/c1/Thumbs.db":                       "s1/c1/Thumbs.db",
		"s1/THUMBS.DB":                          "s1/THUMBS.DB",
		"s1/desktop.ini":                        "s1/desktop.ini",
		"s1/._" + id + ".png":                   "s1/._" + id + ".png",
		"s1/.nfs000000000123":                   "s1/.nfs000000000123",
		"lost+found":                            "lost+found",
		".Trash-1000/files/x":                   ".Trash-1000",
		"s1/@eaDir/" + id + ".png/THUMB_M.jpg":  "s1/@eaDir",
		"s1/" + id + ".png@SynoEAStream":        "s1/" + id + ".png@SynoEAStream",
		"s1/@eaDir/" + id + ".png@SynoEAStream": "s1/@eaDir",
		"@eaDir":                                "", // a file of that name is somebody's
		"s1/thumbs.db.png":                      "",
		"s1/notes.txt":                          "",
		".hidden/x":                             "",
	} {
		f := treeFile(name)
		require.Equal(t, storage.TreeFile{Path: name, Litter: want}, f)
	}
	// A session may have the name that a NAS gives to its directories.
	blob := "@eaDir/c1/" + id + ".png"
	require.Equal(t, blob, treeFile(blob).Blob)
	require.True(t, treeFile(blob+".meta").Sidecar)
	require.Empty(t, treeFile(blob).Litter)

	for _, mine := range []string{".Trash-1000", "lost+found", ".DS_Store", "._x", ".nfs1", "Thumbs.db"} {
		require.False(t, systemsOwn(Element(storage.SessionIDs, mine)), "directory of session %q", mine)
	}
}
