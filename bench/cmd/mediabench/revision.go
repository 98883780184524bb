package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
)

// revision is set with -ldflags "-X main.revision=…".
var revision string

// codeRevision tells code that may give other results apart: the revision that
// was set at the build, or else the one that the go command knows; and where that
// says too little, because files were changed since, some of the program's digest.
func codeRevision() (string, error) {
	name := revision
	if info, ok := debug.ReadBuildInfo(); ok && name == "" {
		name = strings.Trim(info.Main.Version, "()")
	}
	if name != "" && name != "devel" && name != "unknown" && !strings.Contains(name, "dirty") {
		return name, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	program, err := os.ReadFile(self)
	if err != nil {
		return "", fmt.Errorf("digest of the program: %w", err)
	}
	digest := sha256.Sum256(program)
	return strings.TrimPrefix(name+"+"+hex.EncodeToString(digest[:4]), "+"), nil
}
