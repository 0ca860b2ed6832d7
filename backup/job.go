package backup

import (
	"context"
	"fmt"
	"time"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// runJob runs a replicator that does one thing and ends, and returns its last event.
func (r *Replica) runJob(ctx context.Context, order wire.Order) (wire.Event, error) {
	p, err := startProcess(ctx, r.cfg, order, func(e wire.Event) {
		if e.Kind == wire.Waiting {
			r.cfg.Logger.Info("backup: waiting", "for", string(e.Code), "held_by", e.Text, "until", e.Until)
		}
	})
	if err != nil {
		return wire.Event{}, err
	}
	done, err := p.wait(ctx)
	if ctx.Err() == nil {
		return done, err
	}
	// It removes what is half done.
	p.stop()
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := p.wait(patience); patience.Err() != nil {
		p.kill()
		<-p.exited
		return wire.Event{}, fmt.Errorf("%w (%w)", ctx.Err(), err)
	}
	return wire.Event{}, ctx.Err()
}

// A Point is one object of the replica. It ends in a state that can be restored, by its TXID or Time.
type Point struct {
	Level   int       `json:"level"` // 0 is the finest; 9 is a snapshot, a whole copy
	MinTXID uint64    `json:"min_txid"`
	TXID    uint64    `json:"txid"`
	Time    time.Time `json:"time"`
	Bytes   int64     `json:"bytes"`
}

// Points lists what the replica holds, by level and TXID.
func (r *Replica) Points(ctx context.Context) ([]Point, error) {
	done, err := r.runJob(ctx, wire.Order{Mode: wire.List})
	if err != nil {
		return nil, fmt.Errorf("backup: list the replica: %w", err)
	}
	points := make([]Point, len(done.Points))
	for i, p := range done.Points {
		points[i] = Point{p.Level, p.MinTXID, p.MaxTXID, p.Time, p.Bytes}
	}
	return points, nil
}

// takeLease acquires the lease for the database at path, an absolute one, and leaves it standing
// for the replicator that Start runs. It returns false if there are no leases for the replica.
func (r *Replica) takeLease(ctx context.Context, path string, takeOver bool) (bool, error) {
	if r.cfg.LeaseTTL < 0 {
		return false, nil
	}
	dir := r.cfg.dirFor(path)
	owner, err := makeOwner(dir)
	if err != nil {
		return false, err
	}
	done, err := r.runJob(ctx, wire.Order{Mode: wire.Lease, Dir: dir, Owner: owner, LeaseTTL: r.cfg.LeaseTTL, TakeOver: takeOver})
	return done.Number != 0, err
}
