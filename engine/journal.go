package engine

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/mediabolt/mediabolt/storage"
)

// journal is a file in the control directory to which records are appended, as
// lines of JSON:
//
//	{"v":1,"crc32c":"<8 hexadecimal digits>","record":{…}}
//
// The checksum is CRC-32C of the version in decimal, a colon and the record. The
// first line is the head, filled up with spaces to 512 bytes; its record is
// {"end":N}, where N is the length in bytes of what was acknowledged. So damage to
// that is told from what a crash has left: a line that is missing or wrong before N
// is damage, whatever is behind N was never acknowledged and is cut away.
//
// An append writes its lines behind N and syncs them; then it writes the head, which
// is one sector and not torn, and syncs that. The first append, and a replacement
// of all records, writes another file and renames it, so that a file with this name
// always has a whole head.
//
// The owner sees to it that calls come one after the other.
//
// Damage is a JournalError.
type journal[R any] struct {
	root   *os.Root // the control directory
	name   string
	noSync bool
	mode   fs.FileMode // of the file
	remedy string      // what to do about damage; ends errors that tell of it

	end   int64 // as in the head; 0: there is no file
	unfit error // why no record is taken; nil: they are
}

// JournalError is damage of a file that keeps records beside the index, such as the
// holds: ErrCorrupted, with what it costs. A copy of the file from the control directory
// of a backup mends it.
type JournalError struct {
	Path string // of the file
	Err  error
}

func (e *JournalError) Error() string { return e.Err.Error() }
func (e *JournalError) Unwrap() error { return e.Err }

const (
	journalVersion = 1
	journalHead    = 512 // bytes of the head: a sector
)

type journalLine struct {
	Version int             `json:"v"`
	Sum     string          `json:"crc32c"`
	Record  json.RawMessage `json:"record"`
}

type journalEnd struct {
	End int64 `json:"end"`
}

// open reads the head, if there is a file, and removes what a crash has left. With
// an error nothing is known of the records: ErrCorrupted, ErrVersion, or the
// disk's. A journal that can be read but not written is unfit.
func (j *journal[R]) open() error {
	f, err := j.root.OpenFile(j.name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		j.refuse(j.clean())
		return nil
	} else if err != nil {
		return j.wrap(err)
	}
	if j.end, err = j.readHead(f); err != nil {
		return errors.Join(err, f.Close())
	}
	j.refuse(errors.Join(j.clean(), j.renew(f), f.Close()))
	return nil
}

// renew cuts away what was never acknowledged, and makes head and name durable:
// after a sync of them that failed, the kernel may have in memory what is not on
// disk.
func (j *journal[R]) renew(f *os.File) error {
	if err := f.Truncate(j.end); err != nil {
		return err
	}
	if err := j.writeHead(f, j.end); err != nil {
		return err
	}
	return j.syncName()
}

// syncName makes it durable which file has the journal's name.
func (j *journal[R]) syncName() error {
	if j.noSync {
		return nil
	}
	return syncRoot(j.root)
}

// refuse makes the journal unfit because of an error, unless that is nil.
func (j *journal[R]) refuse(err error) {
	if err != nil {
		j.unfit = fmt.Errorf("%s takes no more records since a failure: reopen the store: %w", j.path(), storage.Classify(err))
	}
}

// doubt is the error of an append that may have happened, after which nothing more
// is appended.
func (j *journal[R]) doubt(err error) error {
	j.refuse(err)
	return fmt.Errorf("%w: %w", storage.ErrInDoubt, j.wrap(err))
}

// read calls fn with every record, in order, also with those behind a damaged
// line. An error names the first line that is damaged: ErrCorrupted, or ErrVersion;
// or it is the disk's.
func (j *journal[R]) read(fn func(*R)) error {
	if j.end == 0 {
		return nil
	}
	f, err := j.root.Open(j.name)
	if errors.Is(err, fs.ErrNotExist) {
		return j.damaged("it is gone")
	} else if err != nil {
		return j.wrap(err)
	}
	defer func() { _ = f.Close() }() // was only read
	end, err := j.readHead(f)
	if err != nil {
		return err
	}
	lines := bufio.NewReader(io.NewSectionReader(f, journalHead, end-journalHead))
	var found error
	for n := 2; ; n++ {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return found
		} else if err != nil && err != io.EOF {
			return j.wrap(err)
		}
		record := new(R)
		if err := parseRecord(line, record); err != nil {
			if found == nil {
				found = j.inLine(n, err)
			}
			continue
		}
		fn(record)
	}
}

// readHead returns the end that the head tells of, up to which the file reaches.
func (j *journal[R]) readHead(f *os.File) (int64, error) {
	head := make([]byte, journalHead)
	n, err := f.ReadAt(head, 0)
	if err == io.EOF {
		return 0, j.damaged("it has %d bytes, its first line alone has %d", n, journalHead)
	} else if err != nil {
		return 0, j.wrap(err)
	}
	var e journalEnd
	line := append(bytes.TrimRight(bytes.Clone(head[:journalHead-1]), " "), '\n')
	if err := parseRecord(line, &e); err != nil {
		return 0, j.inLine(1, err)
	}
	if whole, err := formatHead(e.End); err != nil || !bytes.Equal(head, whole) || e.End < journalHead {
		return 0, j.inLine(1, fmt.Errorf("%w: it is not as it was written", storage.ErrCorrupted))
	}
	info, err := f.Stat()
	if err != nil {
		return 0, j.wrap(err)
	}
	if info.Size() < e.End {
		return 0, j.damaged("it has %d bytes, of which %d were acknowledged", info.Size(), e.End)
	}
	return e.End, nil
}

// append makes records durable, all or none. After an error none is there, except
// with ErrInDoubt: then reopening tells. Where a sync failed, no append follows until
// then.
func (j *journal[R]) append(records ...R) error {
	if j.unfit != nil || len(records) == 0 {
		return j.unfit
	}
	if j.end == 0 {
		return j.replace(records...)
	}
	lines, err := formatLines(records)
	if err != nil {
		return j.wrap(err)
	}
	f, err := j.root.OpenFile(j.name, os.O_RDWR, 0)
	if err != nil {
		return j.wrap(err)
	}
	err = j.extend(f, lines)
	if closed := f.Close(); err == nil && closed != nil {
		return j.doubt(closed)
	}
	return err
}

// extend writes lines behind the end, and then moves that behind them.
func (j *journal[R]) extend(f *os.File, lines []byte) error {
	// What an earlier attempt has written goes; a head is never behind the file.
	if err := f.Truncate(j.end); err != nil {
		return j.wrap(err)
	}
	if _, err := f.WriteAt(lines, j.end); err != nil {
		return j.wrap(err)
	}
	if err := j.sync(f); err != nil {
		j.refuse(err)
		return j.wrap(err)
	}
	end := j.end + int64(len(lines))
	if err := j.writeHead(f, end); err != nil {
		return j.doubt(err)
	}
	j.end = end
	return nil
}

func (j *journal[R]) writeHead(f *os.File, end int64) error {
	head, err := formatHead(end)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		return err
	}
	return j.sync(f)
}

// replace puts records in place of all that are there. Errors as with append; with
// ErrInDoubt the file has the old records or the new ones.
func (j *journal[R]) replace(records ...R) error {
	if j.unfit != nil {
		return j.unfit
	}
	lines, err := formatLines(records)
	if err != nil {
		return j.wrap(err)
	}
	end := int64(journalHead + len(lines))
	head, err := formatHead(end)
	if err == nil {
		err = j.writeTemp(append(head, lines...))
	}
	if err != nil {
		return errors.Join(j.wrap(err), j.clean())
	}
	err = j.root.Rename(j.temp(), j.name)
	if err == nil {
		err = j.syncName()
	}
	if err != nil {
		return j.doubt(err)
	}
	j.end = end
	return nil
}

func (j *journal[R]) temp() string { return j.name + ".tmp" }

func (j *journal[R]) writeTemp(data []byte) error {
	if err := j.clean(); err != nil {
		return err
	}
	f, err := j.root.OpenFile(j.temp(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, j.mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = j.sync(f)
	}
	return errors.Join(err, f.Close())
}

// clean removes what a replacement may have left.
func (j *journal[R]) clean() error {
	if err := j.root.Remove(j.temp()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (j *journal[R]) sync(f *os.File) error {
	if j.noSync {
		return nil
	}
	return f.Sync()
}

func (j *journal[R]) path() string { return filepath.Join(j.root.Name(), j.name) }

func (j *journal[R]) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("journal %s: %w", j.path(), storage.Classify(err))
}

func (j *journal[R]) damaged(format string, args ...any) error {
	return &JournalError{j.path(), fmt.Errorf("%w: journal %s: %s: %s", storage.ErrCorrupted, j.path(), fmt.Sprintf(format, args...), j.remedy)}
}

func (j *journal[R]) inLine(n int, err error) error {
	if errors.Is(err, storage.ErrVersion) {
		return fmt.Errorf("journal %s: line %d: %w", j.path(), n, err)
	}
	return &JournalError{j.path(), fmt.Errorf("journal %s: line %d: %w: %s", j.path(), n, err, j.remedy)}
}

// syncRoot makes the entries of a directory durable.
func syncRoot(root *os.Root) error {
	if runtime.GOOS == "windows" {
		return nil // has no sync of directories
	}
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// formatLine is the line of a record.
func formatLine(version int, record []byte) []byte {
	return fmt.Appendf(nil, "{\"v\":%d,\"crc32c\":\"%s\",\"record\":%s}\n", version, journalSum(version, record), record)
}

func formatLines[R any](records []R) (lines []byte, err error) {
	for i := range records {
		record, err := json.Marshal(&records[i])
		if err != nil {
			return nil, err
		}
		lines = append(lines, formatLine(journalVersion, record)...)
	}
	return lines, nil
}

func formatHead(end int64) ([]byte, error) {
	line, err := formatLines([]journalEnd{{end}})
	if err != nil {
		return nil, err
	}
	head := bytes.Repeat([]byte(" "), journalHead)
	copy(head, line[:len(line)-1])
	head[journalHead-1] = '\n'
	return head, nil
}

func journalSum(version int, record []byte) string {
	sum := crc32.Checksum(append(strconv.AppendInt(nil, int64(version), 10), ':'), castagnoli)
	return fmt.Sprintf("%08x", crc32.Update(sum, castagnoli, record))
}

// parseRecord is the inverse of formatLine. It accepts nothing that is not, byte for
// byte, what that wrote: ErrCorrupted, or ErrVersion for a line that is whole and of
// another version.
func parseRecord(line []byte, record any) error {
	var l journalLine
	if err := json.Unmarshal(line, &l); err != nil {
		return fmt.Errorf("%w: it is not one of a journal: %w", storage.ErrCorrupted, err)
	}
	if sum := journalSum(l.Version, l.Record); l.Sum != sum {
		return fmt.Errorf("%w: its checksum is %.16q, that of its content %s", storage.ErrCorrupted, l.Sum, sum)
	}
	if l.Version != journalVersion {
		return fmt.Errorf("%w: it has version %d, this program knows %d: use a newer mediabolt", storage.ErrVersion, l.Version, journalVersion)
	}
	if !bytes.Equal(line, formatLine(l.Version, l.Record)) {
		return fmt.Errorf("%w: it is not as it was written", storage.ErrCorrupted)
	}
	if err := json.Unmarshal(l.Record, record); err != nil {
		return fmt.Errorf("%w: its record: %w", storage.ErrCorrupted, err)
	}
	return nil
}
