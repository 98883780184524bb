package certify

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

// process is a victim that runs. What it says is heard by a model as it comes.
type process struct {
	cmd        *exec.Cmd
	complaints bytes.Buffer  // standard error: of the race detector, or a panic
	ready      chan struct{} // closed when it has opened the store
	gone       chan struct{} // closed when it has said all
	said       atomic.Int64  // notes
	deaf       error         // why not all was heard; read after gone
}

// start starts a victim.
func start(cmd *exec.Cmd, o *orders, m *model) (*process, error) {
	spec, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, ready: make(chan struct{}), gone: make(chan struct{})}
	cmd.Stdin, cmd.Stderr = bytes.NewReader(spec), &p.complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a victim: %w", err)
	}
	go func() {
		defer close(p.gone)
		p.deaf = p.listen(out, m)
	}()
	return p, nil
}

// listen hears notes until the victim is gone. A line that was cut short by the
// end was not said.
func (p *process) listen(out io.Reader, m *model) error {
	lines := bufio.NewReader(out)
	opened := sync.OnceFunc(func() { close(p.ready) })
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		n, err := parseNote(line[:len(line)-1])
		if err != nil {
			return err
		}
		m.hear(n)
		p.said.Add(1)
		if n.verb == verbReady {
			opened()
		}
	}
}

// waitReady waits until the victim has opened the store, or is gone. It is
// false where that takes too long.
func (p *process) waitReady(ctx context.Context) bool {
	select {
	case <-p.ready:
	case <-p.gone:
	case <-ctx.Done():
	case <-time.After(patience):
		return false
	}
	return true
}

// signal sends a victim a signal. One that is gone already is left to those who
// hear its last words.
func (p *process) signal(send func(*os.Process) error) error {
	if err := send(p.cmd.Process); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal a victim: %w", err)
	}
	return nil
}

// wait waits for the end of the victim, which is killed where that takes too
// long.
func (p *process) wait(patience time.Duration) (late bool, err error) {
	timer := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() }) // gone is as good
	<-p.gone
	late = !timer.Stop()
	err = p.cmd.Wait()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		err = nil // how it ended was told before
	}
	if err = errors.Join(err, p.deaf); err != nil {
		return late, fmt.Errorf("listen to a victim: %w", err)
	}
	return late, nil
}
