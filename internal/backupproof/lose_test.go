package backupproof_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

var size = flag.Int64("size", 0, "bytes in the database that is lost, beside what is committed")

// lossLimit is the age of the oldest acknowledged commit that may be lost with the machine, at the
// default interval between copies.
const lossLimit = 2 * time.Second

// TestLoseDirectory deletes the directory of the database under load.
func TestLoseDirectory(t *testing.T) {
	if testing.Short() {
		t.Skip("starts and kills processes, which takes seconds")
	}
	t.Parallel()
	onReplicas(t, false, func(t *testing.T, i int, o orders) {
		o.Restore, o.Bulk, o.LeaseTTL = true, *size, 2*time.Second
		p := newProof(t, o)
		p.start()
		p.loseDirectory(i == 0)
		if *size > 0 || *rounds > 10 {
			p.loseDirectory(i != 0)
		}
	})
}

func (p *proof) loseDirectory(removeFirst bool) {
	pid := p.replicator()
	p.app.sync(p.T)
	p.awaitLoad(time.Duration(500+rand.IntN(1000)) * time.Millisecond)

	remove := func() {
		if err := os.RemoveAll(filepath.Dir(p.orders.Database)); err != nil && !removeFirst { // files come while they go
			p.Fatal(err)
		}
	}
	now := time.Now()
	if removeFirst {
		remove()
		p.app.awaitCommits(p.T, 10) // into files without a name
	}
	kill(p.T, pid, syscall.SIGKILL)
	life := p.app.kill()
	p.ended(p.app, life)
	awaitGone(p.T, pid)
	remove()

	p.start()
	again := p.app.await(p.T, "it serves again", func(now told) bool { return len(now.commits) > 100 })
	if !again.restored {
		p.Fatalf("nothing was restored\n%s", p.app.logged())
	}
	restored := again.commits[0].N
	for _, c := range again.commits {
		restored = min(restored, c.N)
	}
	restored-- // was the last before these
	lost := life.age(restored, now)
	p.Logf("removed first: %v. Of %d acknowledged %d are lost, the oldest was acknowledged %v before; served again after %v",
		removeFirst, life.last, max(life.last-restored, 0), lost.Round(time.Millisecond), again.first.Sub(p.app.began).Round(time.Millisecond))
	if lost > lossLimit {
		p.Errorf("at most %v may be lost", lossLimit)
	}
	p.forget(restored)
	p.app.awaitReplicator(p.T, 0)
	p.Log(p.restoreRunning())
}

// awaitLoad waits until commits are acknowledged for another d.
func (p *proof) awaitLoad(d time.Duration) {
	p.Helper()
	until := time.Now().Add(d)
	p.app.await(p.T, "commits are acknowledged", func(now told) bool {
		return len(now.commits) > 0 && now.commits[len(now.commits)-1].At.After(until)
	})
}
