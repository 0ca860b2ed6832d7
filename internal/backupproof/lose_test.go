package backupproof_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var size = flag.Int64("size", 0, "bytes in the database that is lost, beside what is committed")

// lossLimit is the age of the oldest acknowledged commit that may be lost with the machine, at the
// default interval between copies, on a machine that does nothing else: it is wanted in long runs.
const lossLimit = 2 * time.Second

// TestLoseDirectory deletes the directory of the database under load.
func TestLoseDirectory(t *testing.T) {
	if testing.Short() {
		t.Skip("starts and kills processes, which takes seconds")
	}
	t.Parallel()
	onReplicas(t, false, func(t *testing.T, i int, o orders) {
		o.Restore, o.Bulk, o.LeaseTTL = true, *size, 6*time.Second // replicators start slowly on a busy machine
		p := newProof(t, o)
		p.start()
		p.loseDirectory(i == 0)
		if long() {
			p.loseDirectory(i != 0)
		}
	})
}

func long() bool { return *size > 0 || *rounds > 10 }

func (p *proof) loseDirectory(removeFirst bool) {
	pid := p.replicator()
	p.app.sync(p.T)
	synced := time.Now()
	p.app.await(p.T, "what came since is in the replica, too", func(now told) bool { return now.status.Proven.After(synced) })
	p.awaitLoad(rand.N(time.Second))

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
	life := p.killTogether(pid)
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
	if before := life.age(restored, life.status.Proven); before > 0 {
		p.Errorf("what was acknowledged %v before Status.Proven is lost, too", before)
	}
	if long() && lost > lossLimit {
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
