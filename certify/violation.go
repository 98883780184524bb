package certify

// ViolationKind is which promise was broken; its values are stable.
type ViolationKind string

const (
	ViolationOpen        ViolationKind = "open"        // the store cannot be opened any more
	ViolationLost        ViolationKind = "lost"        // an acknowledged reference is gone
	ViolationBytes       ViolationKind = "bytes"       // a reference cannot be read, or has other bytes
	ViolationMetadata    ViolationKind = "metadata"    // a reference has other metadata
	ViolationResurrected ViolationKind = "resurrected" // an acknowledged deletion did not last
	ViolationUnknown     ViolationKind = "unknown"     // a reference that nobody stored, or whose Store was refused
	ViolationRefcount    ViolationKind = "refcount"    // a refcount that is not the number of references
	ViolationTotals      ViolationKind = "totals"      // totals that are not the sums
	ViolationStaging     ViolationKind = "staging"     // something left in staging after Open, or after Close
	ViolationOrphan      ViolationKind = "orphan"      // a file in the tree that no reference has
	ViolationHold        ViolationKind = "hold"        // an acknowledged hold is gone, one that ended is back, or it does not hold
	ViolationErasure     ViolationKind = "erasure"     // an erasure that was done in part, or has left a trace
	ViolationScope       ViolationKind = "scope"       // bytes that are shared across scopes, or not within one
	ViolationUsage       ViolationKind = "usage"       // a usage that is not the sum of the references
	ViolationQuota       ViolationKind = "quota"       // a quota that is exceeded
	ViolationVerify      ViolationKind = "verify"      // Verify finds damage
	ViolationCall        ViolationKind = "call"        // a call failed, or read other bytes, while nothing was wrong with the disk
	ViolationLock        ViolationKind = "lock"        // a second process was let in, or not told what is wrong
	ViolationStall       ViolationKind = "stall"       // a process does not go on, or does not end
	ViolationPowerCut    ViolationKind = "power_cut"   // a cut image does not hold what was promised
)

// Violation is one broken promise.
type Violation struct {
	Part   string        `json:"part"`  // of the certification
	Round  int           `json:"round"` // of that part, from 0
	Kind   ViolationKind `json:"kind"`
	Detail string        `json:"detail"`
}
