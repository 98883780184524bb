package strict

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Write writes the tree into an empty directory of an ordinary filesystem.
func (t *Tree) Write(dir string) error { return t.writeDir(root, dir, map[uint64]string{}) }

func (t *Tree) writeDir(number uint64, dir string, written map[uint64]string) error {
	written[number] = dir
	names := t.dirs[number]
	for _, name := range slices.Sorted(maps.Keys(names)) {
		n, file := names[name], filepath.Join(dir, name)
		var err error
		switch was := written[n]; {
		case t.files[n] == nil && was != "":
			continue // a directory under two names: a rename half done
		case t.files[n] == nil:
			if err = os.Mkdir(file, os.FileMode(t.modes[n])); err == nil {
				err = t.writeDir(n, file, written)
			}
		case was != "":
			err = os.Link(was, file)
		default:
			written[n] = file
			err = t.files[n].write(file, os.FileMode(t.modes[n]))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *content) write(name string, mode os.FileMode) (err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(c.size); err != nil {
		return err
	}
	for index, b := range c.blocks {
		at := index * blockSize
		if at >= c.size {
			continue
		}
		if _, err := f.WriteAt(b[:min(blockSize, c.size-at)], at); err != nil {
			return err
		}
	}
	return nil
}

// Read makes a durable filesystem of a directory of an ordinary one.
func Read(dir string) (*Model, error) {
	m := NewModel()
	links := map[uint64]uint64{}
	if err := m.readDir(m.nodes[root], dir, links); err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	for _, n := range m.nodes {
		m.sync(n)
	}
	return m, nil
}

func (m *Model) readDir(n *node, dir string, links map[uint64]uint64) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		file, event := filepath.Join(dir, e.Name()), &Event{Kind: Create, Node: m.last + 1, Dir: n.number, Name: e.Name(), Mode: uint32(info.Mode().Perm())}
		switch other := links[inodeOf(info)]; {
		case e.IsDir():
			event.Kind = Mkdir
			m.Apply(event)
			err = m.readDir(m.nodes[event.Node], file, links)
		case other != 0:
			m.Apply(&Event{Kind: Link, Node: other, Dir: n.number, Name: e.Name()})
		default:
			links[inodeOf(info)] = event.Node
			m.Apply(event)
			err = m.readFile(event.Node, file)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *Model) readFile(number uint64, name string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	n := m.nodes[number]
	m.resize(n, int64(len(data)))
	for index := int64(0); index*blockSize < int64(len(data)); index++ {
		b := new(block)
		copy(b[:], data[index*blockSize:])
		if *b != (block{}) {
			m.change(n, change{index: index, block: b})
		}
	}
	return nil
}

func inodeOf(info fs.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }
