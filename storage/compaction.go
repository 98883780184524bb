package storage

import "time"

// Compaction is what making the index smaller has brought, or would bring. Sizes
// are in bytes.
type Compaction struct {
	Before   int64         `json:"before"`   // size of the index's file
	After    int64         `json:"after"`    // its size now; of a dry run, an estimate
	Free     int64         `json:"free"`     // pages of the file that were free before
	Need     int64         `json:"need"`     // room on the disk that it may take meanwhile
	Room     int64         `json:"room"`     // that the disk had; negative: not known
	Pause    time.Duration `json:"pause"`    // of it, how long a change can have waited for the swap of files at most; in nanoseconds
	Duration time.Duration `json:"duration"` // in nanoseconds; 0 of a dry run
}
