//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package replicator

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

const lockPoll = 50 * time.Millisecond

// lock waits until no other process replicates with the same directory, and keeps others from it
// until the file is closed. Two replicators on one database break the replica.
func (c *child) lock(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(c.order.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for told := false; ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			// Only for people: the lock is what counts.
			if err := f.Truncate(0); err == nil {
				_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
			}
			return f, nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return nil, errors.Join(os.NewSyscallError("flock", err), f.Close())
		}
		if !told {
			text := make([]byte, 32)
			n, _ := f.ReadAt(text, 0)
			c.send(wire.Event{Kind: wire.Waiting, Code: "lock", Text: describe(text[:n])})
			told = true
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return nil, errors.Join(errors.New("another process replicates with the same directory"), f.Close())
		}
	}
}
