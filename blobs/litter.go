package blobs

import (
	"path"
	"strings"
)

// systemsOwn says whether a directory is a system's and of no use to look into:
// often nobody but root may. No ID becomes such a name, for a leading dot is
// escaped and lost+found is reserved.
func systemsOwn(element string) bool {
	switch element {
	case "lost+found", ".Spotlight-V100", ".fseventsd", ".TemporaryItems", ".DocumentRevisions-V100":
		return true
	}
	return strings.HasPrefix(element, ".Trash")
}

// litterFiles are what systems leave beside the files of others, in lower case:
// macOS, Windows, KDE.
var litterFiles = map[string]bool{
	".ds_store": true, ".apdisk": true, ".localized": true, "icon\r": true,
	"thumbs.db": true, "ehthumbs.db": true, "desktop.ini": true, ".directory": true,
}

// isLitter says whether an element of a path is a system's: one of the above, an
// AppleDouble or silly-renamed file, a stream that a NAS keeps.
func isLitter(element string) bool {
	if systemsOwn(element) || litterFiles[strings.ToLower(element)] {
		return true
	}
	for _, prefix := range [...]string{"._", ".nfs", ".fuse_hidden"} {
		if strings.HasPrefix(element, prefix) {
			return true
		}
	}
	return strings.HasSuffix(element, "@SynoEAStream") || strings.HasSuffix(element, "@SynoResource")
}

// sharedNames are directories of systems that an ID may be named like: a blob in
// one is a blob.
var sharedNames = map[string]bool{"@eaDir": true, "$RECYCLE.BIN": true, "System Volume Information": true}

// litter is the outermost part of a path that is a system's, empty where none is.
func litter(name string) string {
	end := 0
	for element := range strings.SplitSeq(name, "/") {
		end += len(element)
		if isLitter(element) || sharedNames[element] && name != path.Base(name) {
			return name[:end]
		}
		end++
	}
	return ""
}
