// Why there is no answer.

/**
 * Why there is no answer, for one row or for the whole batch. Throw it.
 *
 * Codes are open strings. `abstain` says "not my case"; every other code is a failure. Neither becomes a number unless the
 * recipe has a rule for it, so a plugin never has to invent a score.
 */
export class Fault extends Error {
  static ABSTAIN = "abstain";
  static BAD_CONFIG = "bad-config";
  static MISSING_COLUMN = "missing-column";
  static UNPARSEABLE = "unparseable";
  static BAD_ARGUMENTS = "bad-arguments";

  /** A fault with a code of the plugin's own: kebab-case, stable. `retryable` says that the same call may succeed later. */
  constructor(code, message = "", { retryable = false } = {}) {
    super(String(message));
    this.name = "Fault";
    this.code = String(code);
    this.retryable = retryable;
  }

  /** "Not my case": the row gets no value, and that is no failure. */
  static abstain(message) {
    return new Fault(Fault.ABSTAIN, message);
  }

  /** The configuration is not valid; `message` should name the key. */
  static badConfig(message) {
    return new Fault(Fault.BAD_CONFIG, message);
  }

  /** A text could not be read as what it should be. */
  static unparseable(message) {
    return new Fault(Fault.UNPARSEABLE, message);
  }

  /** Whether it concerns the batch although a single row met it: one column is missing for all rows. */
  get concernsBatch() {
    return this.code === Fault.MISSING_COLUMN || this.code === Fault.BAD_CONFIG;
  }
}
