package driver_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/bench/cell"
	"github.com/mediabolt/mediabolt/bench/driver"
	"github.com/mediabolt/mediabolt/bench/plan"
)

// TestMain lets this program be the child that cells run in.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == cell.Arg {
		if err := cell.Child(); err != nil {
			_, _ = os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// small is cells of every scope, measured for real and briefly.
func small() []plan.Series {
	const d = 30 * time.Millisecond
	cells := []cell.Cell{
		{Scope: cell.Floor, Op: cell.Create, Size: 4096, Writers: 4, Time: d},
		{Scope: cell.Index, Op: cell.Delete, Size: 4096, Writers: 4, Refs: 500, Index: "boltindex", Time: d},
		{Scope: cell.Engine, Op: cell.Mixed, Size: 4096, Writers: 4, Refs: 2000, Index: "boltindex", Time: d},
		{Scope: cell.Engine, Op: cell.Opening, Size: 4096, Writers: 4, Index: "boltindex", Time: d},
		{Scope: cell.Index, Op: cell.DeleteOld, Size: 4096, Writers: 4, Refs: 2000, Index: "pebble", Time: d},
		{Scope: cell.Engine, Op: cell.DeleteOld, Size: 4096, Writers: 4, Refs: 3000, Index: "boltindex", Time: d},
		{Scope: cell.Engine, Op: cell.StoreText, Size: 4096, Writers: 4, Dup: 50, Index: "boltindex", Time: d},
		{Scope: cell.Engine, Op: cell.Verify, Size: 1024, Writers: 1, Refs: 500, Index: "boltindex", Time: d},
		{Scope: cell.Engine, Op: cell.Backup, Size: 1024, Writers: 1, Refs: 500, Index: "boltindex", Time: d},
		{Scope: cell.Engine, Op: cell.Rebuild, Size: 1024, Writers: 1, Refs: 500, Index: "boltindex", Time: d},
	}
	for i := range cells {
		cells[i].Series = "small"
	}
	return []plan.Series{{Name: "small", Cells: cells}}
}

func TestRunResumes(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "results.json")
	ctx, cancel := context.WithCancel(context.Background())
	measured := 0
	r := driver.Run{
		Profile: "small", Series: small(), Dir: dir, Out: out, Progress: &bytes.Buffer{}, Fill: cell.Fill,
		Measure: func(ctx context.Context, c cell.Cell, dir string) (*cell.Result, error) {
			if measured == 2 {
				cancel()
			}
			res, err := cell.Measure(ctx, c, dir)
			if err == nil {
				measured++
			}
			return res, err
		},
	}
	require.ErrorIs(t, r.Do(ctx), context.Canceled)
	lines, _, err := driver.Read(out)
	require.NoError(t, err)
	require.Len(t, lines, 2)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "scratch directories stay")

	f, err := os.OpenFile(out, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"profile":"sma`) // as a crash leaves it
	require.NoError(t, err)
	require.NoError(t, f.Close())

	measured = 100
	require.NoError(t, r.Do(context.Background()))
	all := len(r.Series[0].Cells)
	require.Equal(t, 100+all-2, measured, "cells were measured again, or not at all")
	require.NoError(t, r.Do(context.Background()))
	require.Equal(t, 100+all-2, measured)

	lines, _, err = driver.Read(out)
	require.NoError(t, err)
	require.Len(t, lines, all)
	for _, l := range lines {
		require.Positive(t, l.Ops, l.Cell.Name())
		require.Positive(t, l.Spent, l.Cell.Name())
	}
	require.Positive(t, lines[1].Commits)
	require.Positive(t, lines[3].OpenKilled)
	require.Less(t, lines[4].References, int64(2000))
	require.Less(t, lines[5].References, int64(3000))
	require.Negative(t, lines[5].Stored)
	for _, l := range lines[7:] {
		require.EqualValues(t, 500, l.References, l.Cell.Name())
		require.Positive(t, l.HeapLive, l.Cell.Name())
	}
}

// scripted is a run whose cells fail where the op is Open, and take no time.
func scripted(dir, revision string, ops ...string) *driver.Run {
	s := plan.Series{Name: "scripted"}
	for _, op := range ops {
		s.Cells = append(s.Cells, cell.Cell{Series: "scripted", Scope: cell.Engine, Op: op, Size: 4096, Writers: 1, Index: "boltindex"})
	}
	return &driver.Run{
		Profile: "small", Revision: revision, Series: []plan.Series{s}, Dir: dir, Out: filepath.Join(dir, "results.json"), Progress: &bytes.Buffer{},
		Fill: func(context.Context, cell.Cell, string) error { return nil },
		Measure: func(_ context.Context, c cell.Cell, _ string) (*cell.Result, error) {
			if c.Op == cell.Open {
				return nil, errors.New("cannot open")
			}
			return &cell.Result{Cell: c, Ops: 1}, nil
		},
	}
}

func TestRunDoesNotMix(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, scripted(dir, "v1", cell.Store).Do(context.Background()))
	next := scripted(dir, "v2", cell.Store, cell.Retrieve)
	require.ErrorContains(t, next.Do(context.Background()), "are of revision v1")
	next.Mix = true
	require.NoError(t, next.Do(context.Background()))
	lines, _, err := driver.Read(next.Out)
	require.NoError(t, err)
	require.Len(t, lines, 2)
	require.Len(t, driver.Origins(lines), 2)
	require.ErrorContains(t, scripted(dir, "v2", cell.Store).Do(context.Background()), "are of revision v1")
}

func TestRunGoesOnAfterAFailure(t *testing.T) {
	dir := t.TempDir()
	r := scripted(dir, "v1", cell.Store, cell.Open, cell.Retrieve)
	require.ErrorContains(t, r.Do(context.Background()), "cannot open")
	lines, _, err := driver.Read(r.Out)
	require.NoError(t, err)
	require.Len(t, lines, 2)
	require.NoDirExists(t, filepath.Join(dir, "store"))
}
