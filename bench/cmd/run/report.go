package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// report is everything a run found out.
type report struct {
	options  options
	servers  []server
	machine  []string
	starts   map[string]starting
	lines    []line
	measured measured
	elapsed  time.Duration
}

// markdown renders the tables and counts the missed gates.
func (r *report) markdown() (text string, missed int) {
	var b strings.Builder
	fmt.Fprintf(&b, "# Benchmark\n\n")
	for _, line := range r.machine {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	if r.options.fit < maxSubscribers {
		fmt.Fprintf(&b, "- no more than %d subscribers: the limit of open files\n", r.options.fit)
	}
	fmt.Fprintf(&b, "- %d rounds, slots of %v after %v of warm-up, %v in all\n\n",
		r.options.rounds, r.options.slot, r.options.warm, r.elapsed.Round(time.Second))
	for _, s := range r.servers {
		fmt.Fprintf(&b, "- **%s**: %s\n", s.name, s.about)
	}
	r.startTable(&b)
	for _, part := range parts[1:] {
		switch part {
		case partMixed:
			r.mixedTable(&b)
		case partStream, partStreamRule:
			r.streamTable(&b, part)
		default:
			r.table(&b, part)
		}
	}
	missed = r.gateTable(&b)
	r.invalidLines(&b)
	return b.String(), missed
}

// startTable shows start-up, idle memory and size.
func (r *report) startTable(b *strings.Builder) {
	if len(r.starts) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n| server | first answer, ms | idle resident, MiB | not file-backed, MiB | binary, MiB |\n|---|--:|--:|--:|--:|\n", partStart)
	for _, s := range r.servers {
		if st, ok := r.starts[s.name]; ok {
			fmt.Fprintf(b, "| %s | %.1f | %.1f | %.1f | %.1f |\n", s.name, st.ready.Seconds()*1e3, st.idleMB, st.anonMB, st.binaryMB)
		}
	}
}

// keys of one part, in the order in which they were first visited.
func (r *report) keys(part string) []key {
	var keys []key
	for _, l := range r.lines {
		k := key{l.Part, l.Label, l.Workload, l.Conns}
		if l.Part == part && !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

// table shows one part, a row per server and number of connections.
func (r *report) table(b *strings.Builder, part string) {
	keys := r.keys(part)
	if len(keys) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n| conns | server | request | req/s | p50 µs | p99 µs | CPU µs/req | RSS MiB |\n", part)
	fmt.Fprintf(b, "|--:|---|---|--:|--:|--:|--:|--:|\n")
	for _, k := range keys {
		fmt.Fprintf(b, "| %d | %s | %s", k.conns, k.server, k.workload)
		r.cells(b, k, "%.0f", rps, p50, p99)
		r.cells(b, k, "%.1f", cpu)
		r.cells(b, k, "%.0f", rss)
		fmt.Fprintf(b, " |\n")
	}
}

// mixedTable shows readers and writers apart.
func (r *report) mixedTable(b *strings.Builder) {
	keys := r.keys(partMixed)
	if len(keys) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s: half of the connections read, half create\n\n", partMixed)
	fmt.Fprintf(b, "| conns | server | reads/s | p50 µs | p99 µs | writes/s | p50 µs | p99 µs | CPU µs/req | RSS MiB |\n")
	fmt.Fprintf(b, "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, k := range keys {
		fmt.Fprintf(b, "| %d | %s", k.conns, k.server)
		r.cells(b, k, "%.0f", ofReads(rps), ofReads(p50), ofReads(p99), ofWrites(rps), ofWrites(p50), ofWrites(p99))
		r.cells(b, k, "%.1f", cpu)
		r.cells(b, k, "%.0f", rss)
		fmt.Fprintf(b, " |\n")
	}
}

// streamTable shows what reached subscribers, and when.
func (r *report) streamTable(b *strings.Builder, part string) {
	keys := r.keys(part)
	if len(keys) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n| subscribers | server | events | written | received | received/s | p50 ms | p99 ms | CPU µs/received | KiB/subscriber |\n", part)
	fmt.Fprintf(b, "|--:|---|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, k := range keys {
		fmt.Fprintf(b, "| %d | %s | %s", k.conns, k.server, k.workload)
		r.cells(b, k, "%.0f", ofStream(written), received, rps)
		r.cells(b, k, "%.1f", inMs(p50), inMs(p99), cpu, ofStream(connKiB))
		fmt.Fprintf(b, " |\n")
	}
}

// cells adds one cell per field.
func (r *report) cells(b *strings.Builder, k key, format string, fields ...field) {
	for _, f := range fields {
		if v := r.measured.median(k, f); math.IsNaN(v) {
			b.WriteString(" | invalid")
		} else {
			fmt.Fprintf(b, " | "+format, v)
		}
	}
}

// gateTable shows the demands and counts those missed.
func (r *report) gateTable(b *strings.Builder) int {
	missed := 0
	fmt.Fprintf(b, "\n## Gates\n\n")
	if r.options.slack > 0 {
		fmt.Fprintf(b, "Judged with %.0f %% of slack.\n\n", r.options.slack*100)
	}
	fmt.Fprintf(b, "| # | measure | demand | measured | |\n|---|---|--:|---|---|\n")
	for _, g := range gates(r.measured, r.starts) {
		v := g.judge(r.options.slack)
		if v == unknown || r.options.quick && slices.Contains(unsteady, g.id) {
			continue
		}
		if v == miss {
			missed++
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", g.id, g.what, g.demand(), g.values(), v)
	}
	return missed
}

// invalidLines lists the slots that had errors and count for nothing.
func (r *report) invalidLines(b *strings.Builder) {
	title := "\n## Invalid slots\n\n"
	for _, l := range r.lines {
		if l.Errs == 0 {
			continue
		}
		fmt.Fprintf(b, "%s- round %d, %s on %s, %d connections: %d errors, first: %s\n",
			title, l.Round, l.Workload, l.Label, l.Conns, l.Errs, l.FirstErr)
		title = ""
	}
}

// write stores the report and the raw lines in dir.
func (r *report) write(dir, text string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "report.md"), []byte(text), 0o600); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "results.jsonl"))
	if err != nil {
		return err
	}
	enc := json.NewEncoder(f)
	for _, l := range r.lines {
		if err := enc.Encode(l); err != nil {
			f.Close()
			return err
		}
	}
	return f.Close()
}
