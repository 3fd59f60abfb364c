/** The sources of the namespaces that a target serves: their sizes, their failures, and their being opened anew. */
import type { Log } from '../../common/text/log.js';
import { tellWithoutRing } from '../../storage/engine.js';
import { SourceWatch } from '../../storage/watch.js';
import type { Namespace } from './model.js';
import type { Subsystem } from './subsystem.js';

/** Sources that are looked at each time: a question to each of thousands would keep an idle target busy. */
const mostLooks = 64;

/** What the watching of sources needs of the target. */
export interface Watched {
  readonly subsystems: ReadonlyMap<string, Subsystem>;
  readonly stopped: boolean;
  readonly log: Log;
  /** Hosts are told that a namespace has another size. */
  resized(subsystem: Subsystem, namespace: Namespace): void;
}

export class Sources {
  readonly #target: Watched;
  /** The engine that was asked for. */
  readonly #wanted: 'sync' | 'uring';
  readonly #watches = new WeakMap<Namespace, SourceWatch>();
  #looked = -1;

  constructor(target: Watched, wanted: 'sync' | 'uring') {
    this.#target = target;
    this.#wanted = wanted;
  }

  /** Looks at sources in turn: a second apart, or longer where there are many. */
  look(): void {
    const all = [...this.#target.subsystems.values()].flatMap((subsystem) =>
      [...subsystem.namespaces.values()].map((namespace) => [subsystem, namespace] as const),
    );
    for (let i = 0; i < Math.min(all.length, mostLooks); i++) {
      this.#looked = (this.#looked + 1) % all.length;
      const [subsystem, namespace] = all[this.#looked]!;
      this.of(subsystem, namespace).tick();
    }
  }

  /** Calls for the watches of all namespaces. */
  each(call: (watch: SourceWatch) => void): void {
    for (const subsystem of this.#target.subsystems.values())
      for (const namespace of subsystem.namespaces.values()) call(this.of(subsystem, namespace));
  }

  /** The watch of a namespace, which begins now if there was none. */
  of(subsystem: Subsystem, namespace: Namespace): SourceWatch {
    const known = this.#watches.get(namespace);
    if (known) return known;
    const target = this.#target;
    const { nsid } = namespace;
    const resized = (bytes: number): number | undefined => {
      if (target.stopped || subsystem.namespaces.get(nsid) !== namespace || !subsystem.resize(namespace, bytes)) return undefined;
      target.resized(subsystem, namespace);
      return namespace.size;
    };
    const watch = new SourceWatch(namespace, {
      log: target.log,
      resized,
      otherwise: `vioctl nvmf ctl SOCK remove ${nsid}, then add it`,
    });
    this.#watches.set(namespace, watch);
    tellWithoutRing(namespace, namespace.options.engine ?? this.#wanted, target.log);
    return watch;
  }
}
