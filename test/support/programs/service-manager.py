"""What a test needs of a service manager: it starts a server with sockets (LISTEN_FDS), hears what it says (NOTIFY_SOCKET),
and keeps its descriptors (FDSTORE). Arguments: path of the notification socket, the server's command line. Lines on stdin:
start, open ADDRESS NAME. Lines of JSON on stdout."""
import array, json, os, selectors, signal, socket, sys

path, command = sys.argv[1], sys.argv[2:]
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(path)
notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
opened, kept = [], []  # (name, descriptor)
child = 0


def say(**what):
    print(json.dumps(what), flush=True)


def start():
    global child
    given = opened + kept
    child = os.fork()
    if child:
        say(event='started', pid=child, given=[name for name, _ in given])
        return
    os.setpgid(0, 0)
    copies = [os.dup2(fd, 100 + i) for i, (_, fd) in enumerate(given)]
    for i, fd in enumerate(copies):
        os.dup2(fd, 3 + i, inheritable=True)
    env = dict(os.environ, NOTIFY_SOCKET=path, WATCHDOG_USEC='200000', WATCHDOG_PID=str(os.getpid()))
    if given:
        env.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(given)), LISTEN_FDNAMES=':'.join(name for name, _ in given))
    os.closerange(3 + len(given), 200)
    os.execvpe(command[0], command, env)


def hear():
    text, ancillary, _, _ = notify.recvmsg(65536, socket.CMSG_SPACE(1024))
    fds = array.array('i')
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    fields = dict(line.split('=', 1) for line in text.decode().split('\n') if '=' in line)
    if 'FDSTORE' in fields:
        kept.extend((fields['FDNAME'], fd) for fd in fds)
    if 'FDSTOREREMOVE' in fields:
        for one in [one for one in kept if one[0] == fields['FDNAME']]:
            os.close(one[1])
            kept.remove(one)
    say(event='message', fields=fields, fds=len(fds), kept=[name for name, _ in kept])


def ended(*_):
    pid, status = os.waitpid(-1, os.WNOHANG)
    if pid:
        say(event='exit', status=os.waitstatus_to_exitcode(status))


signal.signal(signal.SIGCHLD, ended)
wait = selectors.DefaultSelector()
wait.register(notify, selectors.EVENT_READ)
wait.register(sys.stdin, selectors.EVENT_READ)
say(event='ready')
while True:
    for key, _ in wait.select():
        if key.fileobj is notify:
            hear()
            continue
        words = sys.stdin.readline().split()
        if not words:
            if child:
                try:
                    os.kill(child, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            sys.exit(0)
        if words[0] == 'start':
            start()
        if words[0] == 'open':
            listener = socket.create_server((words[1], 0))
            opened.append((words[2], listener.detach()))
            say(event='opened', port=socket.socket(fileno=os.dup(opened[-1][1])).getsockname()[1])
