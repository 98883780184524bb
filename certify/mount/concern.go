package mount

import "slices"

// Concern is something about a filesystem that weakens the promises of a store.
type Concern struct {
	Text  string
	Grave bool // what was acknowledged may be lost, or damaged
}

// NoHardLinks is a concern that only a try can tell.
var NoHardLinks = Concern{Text: "no hard links: blobs are published by a rename, which this filesystem must make durable as one"}

// memoryFilesystems keep nothing when the power goes.
var memoryFilesystems = []string{"tmpfs", "ramfs", "devtmpfs"}

// InMemory says whether the filesystem keeps nothing when the power goes.
func (m *Mount) InMemory() bool { return slices.Contains(memoryFilesystems, m.Filesystem) }

// Filesystems of other machines: what a sync means, and whether locks and maps
// of a file are coherent, is up to them.
var networkFilesystems = []string{"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "glusterfs",
	"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "lustre", "virtiofs", "vboxsf", "fuse.vmhgfs-fuse"}

// Filesystems without a journal, or anything that takes its place.
var plainFilesystems = []string{"ext2", "vfat", "msdos", "exfat", "fuseblk", "hfs", "ufs"}

// optionConcerns are mount options that take away what a store builds on.
var optionConcerns = []struct {
	filesystem, option, text string
	grave                    bool
}{
	{"", "nobarrier", "mount option nobarrier: the disk's cache is never flushed, so a power cut loses what was acknowledged", true},
	{"ext4", "barrier=0", "mount option barrier=0: the disk's cache is never flushed, so a power cut loses what was acknowledged", true},
	{"ext4", "journal_async_commit", "mount option journal_async_commit: a commit of the journal is not waited for in order", true},
	{"ext4", "data=writeback", "mount option data=writeback: what was acknowledged is safe, since it was synced; after a power cut, " +
		"what was being written may hold old bytes of other files, and the store removes it", false},
	{"overlay", "volatile", "mount option volatile: this overlay ignores every sync, so a power cut loses what was acknowledged", true},
	{"btrfs", "nodatacow", "mount option nodatacow: blocks have no checksums of the filesystem's own; the store's are all there is", false},
}

// Concerns are those that can be told by looking, which Linux alone allows.
func (m *Mount) Concerns() []Concern {
	var concerns []Concern
	add := func(when, grave bool, text string) {
		if when {
			concerns = append(concerns, Concern{text, grave})
		}
	}
	add(m.InMemory(), true, m.Filesystem+" loses everything with the power")
	add(slices.Contains(networkFilesystems, m.Filesystem), true, m.Filesystem+" is of another machine, or goes through one: "+
		"what a sync means, and whether locks and maps of a file are coherent, is up to it; a store belongs on a local filesystem")
	add(slices.Contains(plainFilesystems, m.Filesystem), true, m.Filesystem+" has no journal: a power cut may damage files and "+
		"directories that were synced long before")
	add(m.Filesystem == "overlay", false, "overlay is as a rule the writable layer of a container, and goes with it: put the store on a volume")
	for _, c := range optionConcerns {
		add((c.filesystem == "" || c.filesystem == m.Filesystem) && slices.Contains(m.Options, c.option), c.grave, c.text)
	}
	add(m.FastCommit, false, "ext4 has the feature fast_commit: a sync then leaves a short record in place of a commit of the journal, "+
		"and the power cuts that prove this store were of ext4 without it; 'tune2fs -O ^fast_commit' turns it off")
	add(m.Filesystem != "" && !m.ReportingSyncfs, false, "the kernel is older than 5.8, whose syncfs does not tell of write errors: "+
		"the store syncs file by file, which is slower")
	return concerns
}
