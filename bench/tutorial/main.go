// The sign-up of the tutorial's server, as a yardstick for ours.
//
// The tutorial is "Build an OTP-Based Authentication Server with Go" by Vishal Shukla. This code is
// our own. It makes the tutorial's requests to the stores, in the same order: part 2's check for a
// registered phone number, then HSET and EXPIRE. As in part 3, a goroutine sends the code; here it
// writes it to the log. A failed check gives 500; the tutorial takes it for "not registered".
// Debian has no go-redis: redigo stands in, and a request holds one pooled connection.
//
//	GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS= go build -o OUT bench/tutorial/main.go
//	LISTEN=127.0.0.1:0 DATABASE_URL=postgres://… REDIS_URL=redis://… OUT
//
// scripts/find-tool.sh installs Go and the libraries. The table is that of our migrations.
package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/julienschmidt/httprouter"
	_ "github.com/lib/pq"
)

type object map[string]interface{}

type server struct {
	postgres *sql.DB
	redis    *redis.Pool
}

func main() {
	// The tutorial's servers speak no TLS, and lib/pq asks for it by default.
	os.Setenv("PGSSLMODE", "disable")
	postgres, err := sql.Open("postgres", required("DATABASE_URL"))
	must(err)
	postgres.SetMaxOpenConns(25)
	postgres.SetMaxIdleConns(25)
	postgres.SetConnMaxIdleTime(time.Minute)
	must(postgres.Ping())

	// As large as go-redis makes its pool.
	size := 10 * runtime.GOMAXPROCS(0)
	url, timeout := required("REDIS_URL"), 5*time.Second
	pool := &redis.Pool{MaxIdle: size, MaxActive: size, Wait: true, Dial: func() (redis.Conn, error) {
		return redis.DialURL(url, redis.DialReadTimeout(timeout), redis.DialWriteTimeout(timeout))
	}}

	router := httprouter.New()
	router.HandlerFunc(http.MethodPost, "/signup", (&server{postgres, pool}).handle)
	listener, err := net.Listen("tcp", required("LISTEN"))
	must(err)
	fmt.Println("listening on", listener.Addr())
	web := http.Server{Handler: router, IdleTimeout: time.Minute,
		ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	log.Fatal(web.Serve(listener))
}

func (s *server) handle(w http.ResponseWriter, r *http.Request) {
	status, body := s.signUp(http.MaxBytesReader(w, r.Body, 104856))
	text, err := json.Marshal(body)
	must(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(text, '\n'))
}

func (s *server) signUp(body io.Reader) (int, object) {
	var input struct {
		Name        string `json:"name"`
		PhoneNumber string `json:"phone_number"`
	}
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields()
	if decoder.Decode(&input) != nil || decoder.Decode(&struct{}{}) != io.EOF {
		return http.StatusBadRequest, object{"error": "Invalid request payload"}
	}
	if input.Name == "" || input.PhoneNumber == "" {
		return http.StatusBadRequest, object{"error": "Name and phone number are required"}
	}

	registered, err := s.isRegistered(input.PhoneNumber)
	if err != nil {
		log.Print("Postgres: ", err)
		return http.StatusInternalServerError, object{"error": "Failed to read user data"}
	}
	if registered {
		return http.StatusConflict, object{"error": "User already exists with the given phone number"}
	}

	var random [2]byte
	_, err = rand.Read(random[:])
	must(err)
	code := fmt.Sprintf("%04d", binary.BigEndian.Uint16(random[:])%10000)
	if err := s.store(input.PhoneNumber, input.Name, code); err != nil {
		log.Print("Redis: ", err)
		return http.StatusInternalServerError, object{"error": "Failed to store user data"}
	}
	go log.Println("Generated OTP for", input.PhoneNumber, ":", code)
	return http.StatusOK, object{"success": true, "message": "OTP sent successfully"}
}

// Reads the whole row, as the tutorial does. The parameter makes lib/pq wait twice for Postgres:
// once after Parse and Describe, once after Bind and Execute.
func (s *server) isRegistered(phoneNumber string) (bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	var id, createdAt, name, number, version interface{}
	err := s.postgres.QueryRowContext(ctx, `SELECT id, created_at, name, phone_number, version
		FROM users WHERE phone_number = $1`, phoneNumber).Scan(&id, &createdAt, &name, &number, &version)
	if err == sql.ErrNoRows {
		return false, nil
	}
	return err == nil, err
}

func (s *server) store(phoneNumber, name, code string) error {
	connection := s.redis.Get()
	defer connection.Close()
	if _, err := connection.Do("HSET", phoneNumber, "name", name, "otp", code); err != nil {
		return err
	}
	_, err := connection.Do("EXPIRE", phoneNumber, 300)
	return err
}

func required(name string) string {
	value := os.Getenv(name)
	if value == "" {
		log.Fatal(name, " is not set.")
	}
	return value
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
