package storage

import "fmt"

// OrganizationMode says into which directories new blobs go, below the base
// directory of a store.
type OrganizationMode string

const (
	OrganizationFlat           OrganizationMode = "flat"            // BASE/file
	OrganizationByConversation OrganizationMode = "by-conversation" // BASE/conversation/file
	OrganizationBySession      OrganizationMode = "by-session"      // BASE/session/conversation/file, the default
	OrganizationByRun          OrganizationMode = "by-run"          // BASE/run/session/conversation/file
)

// OrganizationModes lists every mode, flattest first.
func OrganizationModes() []OrganizationMode {
	return []OrganizationMode{OrganizationFlat, OrganizationByConversation, OrganizationBySession, OrganizationByRun}
}

// Validate answers ErrInvalidConfig for an unknown mode.
func (m OrganizationMode) Validate() error {
	for _, known := range OrganizationModes() {
		if m == known {
			return nil
		}
	}
	return fmt.Errorf("%w: organization %q: want one of %v", ErrInvalidConfig, string(m), OrganizationModes())
}
