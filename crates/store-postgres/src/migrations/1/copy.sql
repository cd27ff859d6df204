-- Functions for a copy of another store, and for a store whose time is reset.

-- Marks a copy as complete. All writes to the copy that were in progress have ended by then.
create function {s}.rg_end_copy(p_known bytea, out o_status text) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    perform pg_advisory_xact_lock(hashtext('{s}'), 5);
    update {s}.head set copying = null;
    o_status := 'whole';
end
$$;

-- Returns the latest time that the store remembers. If entries are given, the store then remembers no time later
-- than now, and the entries replace the existing entries of their keys.
create function {s}.rg_lower(
    p_known bytea, p_keys bytea[], p_effects bytea[], out o_status text, out o_latest bigint
) language plpgsql as $$
declare
    moment bigint;
begin
    perform {s}.rg_begin(p_known, p_keys is not null);
    select greatest(last, (select adopted from {s}.head)) into strict o_latest from {s}.stamp;
    o_status := 'lowered';
    if p_keys is null then
        return;
    end if;
    moment := {s}.rg_now();
    -- Everything that is created from now on is later than the not-befores of this moment.
    update {s}.stamp set last = moment + 1;
    update {s}.head set adopted = least(adopted, moment);
    delete from {s}.node;
    delete from {s}.change;
    update {s}.revocation r set effect = e.effect
        from unnest(p_keys, p_effects) as e (key, effect) where r.key = e.key and r.effect <> e.effect;
    update {s}.revocation_log set written = least(written, moment);
end
$$;
