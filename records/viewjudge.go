package records

import (
	"database/sql/driver"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bedplate/bedplate/internal/listquery"
	"github.com/bedplate/bedplate/internal/rule"
	"github.com/bedplate/bedplate/internal/sqltoken"
	"github.com/bedplate/bedplate/sqlite"
)

const (
	// fewUsers is up to how many users each have a statement of their own.
	fewUsers = 8

	// manyImages is from how many images on an index of them pays.
	manyImages = 8

	// maxPairs bounds the images times users of one statement, so that none
	// takes long.
	maxPairs = 1 << 16

	// maxFailures is for how many users in a row an image may fail before it
	// is given up.
	maxFailures = 64
)

// judgement is a view compiled for one plan: the read rule and the filter as
// conditions on images.
type judgement struct {
	plan   *plan
	all    bool // there is no condition
	single verdict
	few    verdict // few images for many users, in the table of users
	many   verdict // many images for many users
}

// verdict is a statement that tells which images satisfy the conditions. Its
// first two arguments bound the ordinals of the images.
type verdict struct {
	*statement
	user int // where in the arguments the user is, or -1
	set  int // likewise the number of the first user and, behind it, how many there are
}

// scan says what a verdict goes through.
type scan uint8

const (
	images scan = iota // for one user
	usersOfImages
	imagesOfUsers
)

func newJudgement(p *plan, filter *listquery.Filter) (*judgement, error) {
	j := &judgement{plan: p, all: p.read == nil && filter == nil}
	var err error
	if j.single, err = p.verdict(filter, images); err != nil || p.read == nil || !p.read.UsesUser() {
		return j, err
	}
	if j.few, err = p.verdict(filter, usersOfImages); err != nil {
		return nil, err
	}
	j.many, err = p.verdict(filter, imagesOfUsers)
	return j, err
}

// verdict builds a statement that returns the numbers of the images, counted
// from the first, as one list; for many users, of the pairs of images and
// users: the number of the image times that of the users plus the number of
// the user.
func (p *plan) verdict(filter *listquery.Filter, s scan) (verdict, error) {
	b := builder{patterns: countPatterns(filter)}
	table, ordinal := p.live.images+` AS "_ROW_"`, `"_ROW_".`+p.live.ordinal
	v := verdict{user: -1, set: -1}
	from, to := b.param(nil), b.param(nil)
	user := func() string { return b.slot(slot{kind: userSlot}) }
	if s == images {
		b.add("SELECT group_concat(", ordinal, "-", from, ") FROM ", table, " WHERE ")
	} else {
		first, count := b.param(nil), b.param(nil)
		v.set = 2
		// A function has neither the affinity nor the collation of its
		// argument: as a parameter, which it stands for, has none.
		user = func() string { return "ifnull(" + userID + ",NULL)" }
		outer, inner := table, userTable
		if s == imagesOfUsers {
			outer, inner = inner, outer
		}
		b.add("SELECT group_concat((", ordinal, "-", from, ")*", count, "+", userNumber, "-", first, ") FROM ", outer, " CROSS JOIN ", inner,
			" WHERE ", userNumber, ">=", first, " AND ", userNumber, "<", first, "+", count, " AND ")
	}
	b.add(ordinal, ">=", from, " AND ", ordinal, "<", to)
	readable := ""
	if p.read != nil {
		readable = p.read.SQL(user, nil)
		b.add(" AND ")
		if s != imagesOfUsers || hasQuery(p.read) {
			b.add("+") // see byKey; without it, images may be found by an index made for the statement
		}
		b.add(readable)
	}
	if filter != nil {
		b.add(" AND ")
		if err := p.filter(&b, filter, readable); err != nil {
			return v, err
		}
	}
	v.statement = b.statement()
	v.user = slices.Index(v.args, driver.Value(slot{kind: userSlot}))
	return v, nil
}

// hasQuery reports whether r has a sub-query.
func hasQuery(r *rule.Rule) bool {
	tokens, _ := sqltoken.Scan(r.Source())
	return slices.ContainsFunc(tokens, func(t sqltoken.Token) bool { return t.Is("SELECT") })
}

// run calls hit with each number that v tells for the images from up to, but
// not including, to. Either user or set is what v takes.
func (j *judgement) run(q *sqlite.Scratch, v verdict, user driver.Value, from, to int, set *userSet, hit func(n int)) error {
	args := slices.Clone(v.args)
	args[0], args[1] = int64(from), int64(to)
	if v.user >= 0 {
		args[v.user] = user
	}
	if v.set >= 0 {
		args[v.set], args[v.set+1] = int64(0), int64(1)
		if set != nil {
			args[v.set], args[v.set+1] = set.first, int64(len(set.members))
		}
	}
	list := ""
	err := q.Query(v.sql, args, func(row []driver.Value) error {
		list, _ = row[0].(string)
		return nil
	})
	if err != nil || list == "" {
		return err
	}
	for number := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(number)
		if err != nil {
			return err
		}
		hit(n)
	}
	return nil
}

// Judge calls see for every image of a row that a user may see: the row
// before (old) or after changes[change], as users[user]. With PerUser false,
// users is not looked at and user is 0. It runs in a snapshot of q, where it
// keeps what is worth keeping until the next call.
//
// A row that the rule cannot be evaluated on for a user is not seen by that
// user, which is logged once. If it fails for 64 users in a row, none of the
// users behind them sees the row, nor is anything asked about it any more.
//
// With any error it is not known who may see what: it is [ErrGone], one of the
// database, such as [sqlite.ErrTimeout] when evaluating takes too long, or that
// the changes are of columns that the API has not been compiled for yet.
func (v *View) Judge(q *sqlite.Scratch, changes []*sqlite.Change, users []any, see func(change, user int, old bool)) error {
	j, err := v.current()
	if err != nil {
		return err
	}
	if !v.perUser {
		users = []any{nil}
	}
	if len(changes) == 0 || len(users) == 0 {
		return nil
	}
	for _, c := range changes {
		// A column that is not there would be NULL: a rule might grant that,
		// and it would be sent.
		if !j.plan.live.places(j.plan.table, c.Columns).complete() {
			return fmt.Errorf("records: api %q: change %d is of other columns", v.api, c.Seq)
		}
	}
	if j.all {
		for i, c := range changes {
			if c.Old != nil {
				see(i, 0, true)
			}
			if c.New != nil {
				see(i, 0, false)
			}
		}
		return nil
	}
	tables, err := tablesOf(q)
	if err != nil {
		return err
	}
	first, err := tables.load(j.plan.live, j.plan.table, changes)
	if err != nil {
		return err
	}
	from, to := 2*first, 2*(first+len(changes))
	c := court{j: j, q: q, users: users, failures: map[int]int{}}
	c.see = func(image, user int) { see(image/2-first, user, image%2 == 0) }
	if v.perUser && len(users) > fewUsers && !j.plan.live.apart {
		if c.set, err = tables.users(v.key, users); err != nil {
			return err
		}
	}
	if err := c.all(from, to); err != nil {
		return err
	}
	if c.failed != nil && j.plan.live.warned.CompareAndSwap(false, true) {
		v.s.log.Warn("read rule or filter could not be evaluated for a change, nobody it failed for is told", "api", v.api, "error", c.failed)
	}
	return nil
}

// court judges images for users.
type court struct {
	j      *judgement
	q      *sqlite.Scratch
	users  []any
	set    *userSet // nil: one by one
	see    func(image, user int)
	failed error // why something is not seen

	failures map[int]int // by image, for how many users in a row it failed
}

// all judges the images from up to to for all users.
func (c *court) all(from, to int) error {
	if c.set == nil {
		return c.each(from, to)
	}
	step := max(1, maxPairs/len(c.set.members))
	for ; from < to; from += step {
		if err := c.many(from, min(from+step, to)); err != nil {
			return err
		}
	}
	return nil
}

// many judges images for the set of users. Where that fails, it finds out by
// halves for which images, and asks for these user by user.
func (c *court) many(from, to int) error {
	n, v := len(c.set.members), c.j.few
	if to-from >= manyImages {
		v = c.j.many
	}
	err := c.j.run(c.q, v, nil, from, to, c.set, func(i int) {
		if user := c.set.place(i % n); user >= 0 {
			c.see(from+i/n, user)
		}
	})
	switch {
	case err == nil || !c.denies(err):
		return err
	case to-from > 1:
		half := (from + to) / 2
		if err := c.many(from, half); err != nil {
			return err
		}
		return c.many(half, to)
	}
	return c.each(from, to)
}

// each judges images user by user.
func (c *court) each(from, to int) error {
	for user := range c.users {
		if to-from == 1 && c.givenUp(from, to) {
			return nil
		}
		if err := c.one(from, to, user); err != nil {
			return err
		}
	}
	return nil
}

// one judges images for one user, by halves where that fails.
func (c *court) one(from, to, user int) error {
	if !c.givenUp(from, to) {
		err := c.j.run(c.q, c.j.single, c.users[user], from, to, nil, func(i int) { c.see(from+i, user) })
		if err == nil {
			c.succeeded(from, to)
			return nil
		}
		if !c.denies(err) {
			return err
		}
		if to-from == 1 {
			c.failures[from]++
		}
	}
	if to-from == 1 {
		return nil
	}
	half := (from + to) / 2
	if err := c.one(from, half, user); err != nil {
		return err
	}
	return c.one(half, to, user)
}

// givenUp reports whether one of the images has failed for too many users.
func (c *court) givenUp(from, to int) bool {
	if len(c.failures) == 0 {
		return false
	}
	for ; from < to && c.failures[from] < maxFailures; from++ {
	}
	return from < to
}

func (c *court) succeeded(from, to int) {
	for ; from < to && len(c.failures) > 0; from++ {
		delete(c.failures, from)
	}
}

// denies reports whether err means that nothing is seen, rather than that it
// cannot be told at the moment.
func (c *court) denies(err error) bool {
	if !evaluation(err) {
		return false
	}
	// Is it the rows, or the statement itself? Then the schema has changed.
	if c.failed == nil && c.j.run(c.q, c.j.single, nil, 0, 0, nil, nil) != nil {
		return false
	}
	c.failed = err
	return true
}
