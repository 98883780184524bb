package boltindex

// wipe overwrites one segment of the log with zeros, when bbolt has the rows of all
// its records: what is in a segment stays there until the next use of it.
func (x *Index) wipe(segment int) error {
	for {
		if err := x.flushFrozen(false); err != nil {
			return err
		}
		x.writing.Lock()
		if x.changes.active == segment {
			x.turnAway()
		}
		x.writing.Unlock()
		done, err := x.wipeIdle(segment)
		if done || err != nil {
			return err
		}
	}
}

// turnAway is freeze, also where the active segment has no rows. The caller holds
// writing.
func (x *Index) turnAway() {
	x.freeze()
	x.layersMu.Lock()
	defer x.layersMu.Unlock()
	if x.frozen == nil && x.active.Len() == 0 {
		x.changes.turn()
	}
}

// wipeIdle is wipe, where the segment is not the active one and has nothing for bbolt.
// While it runs the log does not turn to the segment: it takes a table without rows
// for one that bbolt does not have yet.
func (x *Index) wipeIdle(segment int) (done bool, err error) {
	x.flushing.Lock()
	defer x.flushing.Unlock()
	x.layersMu.Lock()
	idle := x.frozen == nil && x.changes.active != segment
	if idle {
		x.frozen = newTable()
	}
	x.layersMu.Unlock()
	if !idle {
		return false, nil
	}
	s := x.changes.segments[segment]
	_, err = s.file.WriteAt(make([]byte, s.size), 0)
	if err == nil {
		err = x.changes.sync(s)
	}
	x.layersMu.Lock()
	defer x.layersMu.Unlock()
	x.frozen = nil
	return true, err
}
