package main

import (
	"bufio"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/auth"
)

// userCommand is the commands that manage users. They work on the database
// itself, so they need no server, and a running one takes notice within a
// minute.
type userCommand struct {
	Add         userAdd         `cmd:"" help:"Make an account. The password is read from standard input."`
	List        userList        `cmd:"" help:"List all accounts."`
	SetPassword userSetPassword `cmd:"" help:"Replace a password, read from standard input, and end all sessions."`
	SetAdmin    userSetAdmin    `cmd:"" help:"Make somebody an administrator, or no longer one."`
	Disable     userDisable     `cmd:"" help:"Lock an account and end its sessions."`
	Enable      userEnable      `cmd:"" help:"Open a locked account."`
	Delete      userDelete      `cmd:"" help:"Remove an account and what belongs to it."`
	Sessions    userSessions    `cmd:"" help:"List the sessions of a user."`
	Revoke      userRevoke      `cmd:"" help:"End one session of a user, or all of them."`
}

type keysCommand struct {
	Rotate keysRotate `cmd:"" help:"Sign with a new key. Tokens of the old one stay good until they expire."`
}

type userAdd struct {
	where
	Email      string `placeholder:"ADDRESS" help:"E-mail address."`
	Username   string `placeholder:"NAME" help:"Name to sign in with."`
	Admin      bool   `help:"Make an administrator."`
	Unverified bool   `help:"Ask by mail whether the address is right, rather than taking it for verified."`
	NoPassword bool   `help:"Make an account without a password."`
}

func (c *userAdd) Run(p *program) error {
	u := auth.CreateUser{Email: c.Email, Username: c.Username, Admin: c.Admin, Verified: !c.Unverified}
	if !c.NoPassword {
		var err error
		if u.Password, err = p.password(); err != nil {
			return err
		}
	}
	return c.open(p, func(b *bedplate.Backend) error {
		id, err := b.Auth.CreateUser(p.ctx, u)
		if errors.Is(err, auth.ErrConflict) {
			return errors.New("somebody has that address or name already")
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(p.stdout, id)
		return nil
	})
}

type userList struct{ where }

func (c *userList) Run(p *program) error {
	return c.open(p, func(b *bedplate.Backend) error {
		table := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "ID\tEMAIL\tUSERNAME\tCREATED\t")
		err := b.DB.Query(p.ctx, `SELECT id, coalesce(email, unverified_email, ''), coalesce(username, ''), created,
				iif(admin, ' admin', '') || iif(disabled, ' disabled', '') || iif(unverified_email IS NULL, '', ' unverified')
			FROM _user ORDER BY created, id`, nil, func(v []driver.Value) error {
			var id auth.UserID
			raw, _ := v[0].([]byte)
			copy(id[:], raw)
			created, _ := v[3].(int64)
			_, err := fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", id, printable(v[1]), printable(v[2]), moment(time.Unix(created, 0)), v[4])
			return err
		})
		return errors.Join(err, table.Flush())
	})
}

type userSetPassword struct {
	where
	userArg
}

func (c *userSetPassword) Run(p *program) error {
	password, err := p.password()
	if err != nil {
		return err
	}
	return c.do(p, c.where, func(s *auth.Service, id auth.UserID) error { return s.SetPassword(p.ctx, id, password) })
}

type userSetAdmin struct {
	where
	userArg
	Off bool `help:"Make an ordinary user of an administrator."`
}

func (c *userSetAdmin) Run(p *program) error {
	return c.do(p, c.where, func(s *auth.Service, id auth.UserID) error { return s.SetAdmin(p.ctx, id, !c.Off) })
}

type userDisable struct {
	where
	userArg
}

func (c *userDisable) Run(p *program) error {
	return c.do(p, c.where, func(s *auth.Service, id auth.UserID) error { return s.SetDisabled(p.ctx, id, true) })
}

type userEnable struct {
	where
	userArg
}

func (c *userEnable) Run(p *program) error {
	return c.do(p, c.where, func(s *auth.Service, id auth.UserID) error { return s.SetDisabled(p.ctx, id, false) })
}

type userDelete struct {
	where
	userArg
}

func (c *userDelete) Run(p *program) error {
	return c.do(p, c.where, func(s *auth.Service, id auth.UserID) error { return s.DeleteUser(p.ctx, id) })
}

type userSessions struct {
	where
	userArg
}

func (c *userSessions) Run(p *program) error {
	return c.do(p, c.where, func(s *auth.Service, id auth.UserID) error {
		sessions, err := s.Sessions(p.ctx, id)
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "ID\tCREATED\tSEEN\tMETHOD\tADDRESS\tDEVICE")
		for _, x := range sessions {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n",
				x.ID, moment(x.Created), moment(x.Seen), x.Method, printable(x.Address), printable(x.Device))
		}
		return table.Flush()
	})
}

type userRevoke struct {
	where
	userArg
	Session string `arg:"" optional:"" help:"Session to end, as listed by the command sessions; without it all."`
}

func (c *userRevoke) Run(p *program) error {
	return c.do(p, c.where, func(s *auth.Service, id auth.UserID) error {
		if c.Session == "" {
			return s.EndSessions(p.ctx, id)
		}
		if err := s.EndSession(p.ctx, id, c.Session); errors.Is(err, auth.ErrNotFound) {
			return errors.New("the user has no such session")
		} else if err != nil {
			return err
		}
		return nil
	})
}

type keysRotate struct{ where }

func (c *keysRotate) Run(p *program) error {
	return c.open(p, func(b *bedplate.Backend) error { return b.Auth.RotateKey(p.ctx) })
}

// userArg names a user.
type userArg struct {
	User string `arg:"" help:"Verified e-mail address, username or id; write -- in front of an id that begins with a hyphen."`
}

// do finds the user and calls fn.
func (u userArg) do(p *program, w where, fn func(*auth.Service, auth.UserID) error) error {
	return w.open(p, func(b *bedplate.Backend) error {
		id, err := auth.ParseUserID(u.User)
		if err != nil {
			var found *auth.User
			if found, err = b.Auth.Find(p.ctx, u.User); err == nil {
				id = found.ID
			}
		}
		if err == nil {
			err = fn(b.Auth, id)
		}
		if errors.Is(err, auth.ErrNotFound) {
			return fmt.Errorf("there is no user %q", u.User)
		}
		return err
	})
}

// open opens the database of a server, which may be running, and calls fn.
func (w where) open(p *program, fn func(*bedplate.Backend) error) (err error) {
	conf, err := w.load()
	if err != nil {
		return err
	}
	if conf.Auth == nil {
		return errors.New("no sign-in is configured: --config needs a file with auth")
	}
	if _, err := os.Stat(conf.mainFile()); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no %s: start the server once, or name its --data-dir", conf.mainFile())
	} else if err != nil {
		return err
	}
	if err := conf.makeDirectories(); err != nil {
		return err
	}
	conf.Mailer = noMailer{}
	override(&conf.SiteURL, "", "http://localhost") // in mails only
	c := conf.backend(logger(p.stderr, slog.LevelWarn))
	// Tables and streams are the server's, and so is the file that it keeps for a full disk.
	c.Migrations, c.Records, c.Realtime, c.SQLite.Ballast = nil, nil, nil, -1
	for i := range c.Databases {
		c.Databases[i].Migrations = nil
	}
	b, err := bedplate.Open(p.ctx, c)
	if err != nil {
		return conf.locate(err)
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	return fn(b)
}

// noMailer leaves mails to the server: they go back into their queue.
type noMailer struct{}

func (noMailer) Send(ctx context.Context, _ auth.Message) error {
	<-ctx.Done()
	return ctx.Err()
}

// maxPassword is more than there is any use for, in bytes.
const maxPassword = 4 << 10

// password reads a password: from somebody at a terminal, who is asked twice
// and does not see it, or one line from elsewhere.
func (p *program) password() (string, error) {
	lines := bufio.NewReader(io.LimitReader(p.stdin, 2*maxPassword))
	f, ok := p.stdin.(*os.File)
	if ok {
		info, err := f.Stat()
		ok = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	if !ok {
		return p.line(lines)
	}
	if err := p.stty(f, "-echo"); err != nil {
		return "", fmt.Errorf("hide the password: %w; write it to standard input instead", err)
	}
	defer func() {
		_ = p.stty(f, "echo")
		fmt.Fprintln(p.stderr)
	}()
	fmt.Fprint(p.stderr, "Password: ")
	password, err := p.line(lines)
	if err != nil {
		return "", err
	}
	fmt.Fprint(p.stderr, "\nOnce more: ")
	again, err := p.line(lines)
	if err == nil && again != password {
		err = errors.New("the passwords differ")
	}
	return password, err
}

// line reads one line, unless the program is to end first.
func (p *program) line(from *bufio.Reader) (string, error) {
	type result struct {
		text string
		err  error
	}
	read := make(chan result, 1)
	go func() { // at the end of the program it may still wait for the terminal
		text, err := from.ReadString('\n')
		read <- result{text, err}
	}()
	select {
	case <-p.ctx.Done():
		return "", p.ctx.Err()
	case r := <-read:
		if r.err != nil && !errors.Is(r.err, io.EOF) {
			return "", fmt.Errorf("read the password: %w", r.err)
		}
		text := strings.TrimSuffix(strings.TrimSuffix(r.text, "\n"), "\r")
		switch {
		case text == "":
			return "", errors.New("no password on standard input")
		case len(text) > maxPassword:
			return "", errors.New("the password is too long")
		}
		return text, nil
	}
}

// stty changes the terminal, also when the program is ending.
func (p *program) stty(terminal *os.File, setting string) error {
	cmd := exec.CommandContext(context.WithoutCancel(p.ctx), "stty", setting)
	cmd.Stdin = terminal
	return cmd.Run()
}

// printable is text as a terminal may show it: some of it strangers have
// written.
func printable(v driver.Value) string {
	s := fmt.Sprint(v)
	if s == "" {
		return "-"
	}
	if quoted := strconv.Quote(s); quoted != `"`+s+`"` {
		return quoted
	}
	return s
}

func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }
