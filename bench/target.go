package bench

import "fmt"

// Target is what a ratio of mediabolt over a floor should be.
type Target struct {
	Name    string
	Floor   string // what the floor is
	Writers int
	// Want is what the gate holds mediabolt to.
	Want float64
}

// Floors in words.
const (
	diskFloor   = "create, write, fdatasync, rename"
	hashFloor   = "SHA-256 on all cores"
	readFloor   = "os.ReadFile"
	encodeFloor = "os.ReadFile and standard base64"
)

// The targets.
var (
	storeMany   = Target{"store new 100 KiB, 64 writers", diskFloor, manyWriters, 1}
	storeOne    = Target{"store new 100 KiB, 1 writer", diskFloor, 1, 0.45}
	storeSmall  = Target{"store new 4 KiB, 64 writers", diskFloor, manyWriters, 0.9}
	storeLarge  = Target{"store new 16 MiB, 1 writer", diskFloor, 1, 0.95}
	presentRaw  = Target{"store present 100 KiB, 64 writers, StoreReader", hashFloor, manyWriters, 0.6}
	presentText = Target{"store present 100 KiB, 64 writers, Store, base64", hashFloor, manyWriters, 0.5}
	retrieveOne = Target{"Retrieve 1 MiB", encodeFloor, 1, 2.5}
	openNew     = Target{"Open and read 1 MiB, verified, into a new buffer", readFloor, 1, 0.9}
	openReused  = Target{"Open and read 1 MiB, verified, into one buffer", readFloor, 1, 0.9}
)

// preloaded is the target of stores into an index of refs references.
func preloaded(refs int) Target {
	return Target{
		fmt.Sprintf("store new 100 KiB, %d writers, %d references there", manyWriters, refs),
		"the same into an empty store", manyWriters, 1 / 1.5,
	}
}
