package cell

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
)

// Arg is the first argument of a program that is to be a child.
const Arg = "cell"

// task is what a child is to do, in JSON on its standard input.
type task struct {
	Kind string // fill, measure or victim
	Cell Cell
	Dir  string
}

// Measure measures a cell in a child process, in a store in dir that Fill has
// filled. The program must call Child when its first argument is Arg.
func Measure(ctx context.Context, c Cell, dir string) (*Result, error) {
	out, err := start(ctx, task{"measure", c, dir})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name(), err)
	}
	r := &Result{}
	if err := json.Unmarshal(out, r); err != nil {
		return nil, fmt.Errorf("%s: result %.80q: %w", c.Name(), out, err)
	}
	return r, nil
}

// Fill makes the store in dir that a cell is measured on, in a child process.
func Fill(ctx context.Context, c Cell, dir string) error {
	if _, err := start(ctx, task{"fill", c, dir}); err != nil {
		return fmt.Errorf("fill for %s: %w", c.Name(), err)
	}
	return nil
}

func start(ctx context.Context, t task) ([]byte, error) {
	cmd, err := command(ctx, t)
	if err != nil {
		return nil, err
	}
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	return out, nil
}

func command(ctx context.Context, t task) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	spec, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, Arg)
	cmd.Stdin = strings.NewReader(string(spec))
	dieWithParent(cmd)
	return cmd, nil
}

// Child does what standard input says and writes what came of it to standard
// output. An interrupt of the terminal is left to the parent.
func Child() error {
	signal.Ignore(os.Interrupt)
	var t task
	if err := json.NewDecoder(os.Stdin).Decode(&t); err != nil {
		return err
	}
	ctx := context.Background()
	switch t.Kind {
	case "fill":
		return fill(ctx, &t.Cell, t.Dir)
	case "victim":
		return victim(ctx, &t.Cell, t.Dir)
	case "measure":
		r, err := measure(ctx, &t.Cell, t.Dir)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	return errors.New("no such task: " + t.Kind)
}
